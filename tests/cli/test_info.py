"""``charrnn info`` without a model: the versions and the machine, for a bug report."""

import json
import platform
from importlib import metadata
from pathlib import Path

import pytest

import charrnn as package
from tests.conftest import Charrnn, one_line

FIELDS = [
    "charrnn", "python", "torch", "numpy", "llvmlite", "safetensors", "typer", "platform", "processor", "cores",
]  # fmt: skip


def test_without_a_model_info_describes_the_installation(without_torch: Charrnn) -> None:
    result = without_torch("info", "--json")
    assert result.returncode == 0
    assert result.stderr.startswith(b"checkpoints: contains no model; ")
    environment = json.loads(result.stdout)["environment"]
    assert list(environment) == FIELDS
    assert environment["charrnn"] == package.__version__
    assert environment["python"] == platform.python_version()
    assert environment["torch"] == metadata.version("torch")
    assert environment["processor"]


def test_without_a_model_and_json_info_prints_one_line_per_field(charrnn: Charrnn) -> None:
    result = charrnn("info")
    assert result.returncode == 0
    assert [line.split()[0] for line in result.stdout.decode().splitlines()] == FIELDS


def test_a_package_that_is_not_installed_is_null(charrnn: Charrnn, monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", version)
    assert json.loads(charrnn("info", "--json").stdout)["environment"]["llvmlite"] is None
    assert b"llvmlite    not installed\n" in charrnn("info").stdout


def test_the_json_of_a_model_also_describes_the_installation(charrnn: Charrnn, tiny_path: Path) -> None:
    result = charrnn("info", tiny_path, "--json")
    assert list(json.loads(result.stdout)["environment"]) == FIELDS


def test_a_named_model_that_is_missing_is_an_error(charrnn: Charrnn) -> None:
    result = charrnn("info", "missing", "--json")
    assert (result.returncode, result.stdout) == (1, b"")
    assert "missing: no such file" in one_line(result)
