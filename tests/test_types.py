"""The type annotations of the package, for editors and type checkers."""

import inspect
import subprocess
import sys
import tarfile
import venv
import zipfile
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, get_type_hints

import pytest

import charrnn
from charrnn.config import ModelConfig, ReadConfig, SampleConfig, TrainConfig
from charrnn.config.keywords import SampleKeywords, TrainKeywords
from charrnn.config.overrides import Overrides

ROOT = Path(charrnn.__file__).parent.parent
START_SETTINGS = {"from_model", "freeze_vocabulary"}  # settings of the start of a run, in no config
CONFIGS = (ReadConfig, ModelConfig, TrainConfig)
SAMPLE_FUNCTIONS = [charrnn.Model.sample, charrnn.Model.stream, charrnn.Model.samples, charrnn.sample]

PROGRAM = """\
import charrnn

model: charrnn.Model = charrnn.train("to be or not to be", hidden=16, cell="gru", steps=3)
text: str = model.sample("to", length=9, temperature=(0.5, 1.0), top_k=3, stop=("x", "y"), seed=1)
for piece in model.stream("to", length=9, precision="fp32"):
    text += piece
score: float = charrnn.score(model, text).bits_per_char
"""
TYPE_ERRORS = {  # lines with a type error, and a word of the message
    'model.sample("to", temprature=0.5)': "temprature",
    'model.sample("to", top_k="three")': "top_k",
    'model.stream("to", unknown="guess")': "unknown",
    'charrnn.train("to be", hiden=16)': "hiden",
    'charrnn.train("to be", cell="elman")': "cell",
    'number: int = model.sample("to")': "str",
}


def test_overrides_are_the_settings_of_all_configs_or_none() -> None:
    hints = get_type_hints(Overrides)
    settings = {name: hint for config in CONFIGS for name, hint in get_type_hints(config).items()}
    assert {name: hint for name, hint in hints.items() if name not in START_SETTINGS} == {
        name: hint | None for name, hint in settings.items()
    }
    assert sum(len(fields(config)) for config in CONFIGS) == len(settings)  # no name is in two configs
    assert all(field.default is None for field in fields(Overrides))


def test_the_keywords_of_train_are_the_overrides() -> None:
    hints = get_type_hints(Overrides)
    assert get_type_hints(TrainKeywords) == {name: hint for name, hint in hints.items() if name not in START_SETTINGS}


def test_the_keywords_of_sample_are_the_sample_config() -> None:
    hints = get_type_hints(SampleConfig)
    assert get_type_hints(SampleKeywords) == {name: hint for name, hint in hints.items() if name != "length"}


@pytest.mark.parametrize("function", SAMPLE_FUNCTIONS)
def test_a_sample_function_has_every_setting_with_its_type_and_default(function: Any) -> None:
    parameters, hints = inspect.signature(function).parameters, get_type_hints(SampleConfig)
    assert all(parameter.kind is not parameter.VAR_KEYWORD for parameter in parameters.values())
    assert (parameters["length"].annotation, parameters["length"].default) == (int | None, None)
    for field in fields(SampleConfig):
        parameter = parameters[field.name]
        assert parameter.kind is parameter.KEYWORD_ONLY
        if field.name != "length":
            assert (parameter.annotation, parameter.default) == (hints[field.name], field.default)


def test_train_has_every_setting_with_its_type() -> None:
    parameters, hints = inspect.signature(charrnn.train).parameters, get_type_hints(Overrides)
    for name in hints.keys() - START_SETTINGS:
        assert (parameters[name].annotation, parameters[name].default) == (hints[name], None)
    assert hints.keys() & parameters.keys() == hints.keys() - START_SETTINGS


def test_every_setting_has_a_default() -> None:
    assert all(field.default is not MISSING for config in (*CONFIGS, SampleConfig) for field in fields(config))


def test_the_package_contains_the_marker_of_typed_packages() -> None:
    assert (ROOT / "charrnn" / "py.typed").read_bytes() == b""


@pytest.mark.slow
def test_a_program_is_type_checked_against_the_installed_wheel(tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"

    def run(*command: str | Path) -> None:
        subprocess.run([str(python), *map(str, command)], cwd=tmp_path, check=True, timeout=300)

    run("-m", "pip", "install", "-q", "hatchling")
    subprocess.run([python, "-m", "hatchling", "build", "-d", tmp_path / "dist"], cwd=ROOT, check=True, timeout=300)
    (wheel,), (sdist,) = (list((tmp_path / "dist").glob(pattern)) for pattern in ("*.whl", "*.tar.gz"))
    assert "charrnn/py.typed" in zipfile.ZipFile(wheel).namelist()
    with tarfile.open(sdist) as archive:
        assert any(name.endswith("/charrnn/py.typed") for name in archive.getnames())
    run("-m", "pip", "install", "-q", "--no-deps", wheel)
    program = tmp_path / "program.py"
    program.write_text(PROGRAM + "\n".join(TYPE_ERRORS) + "\n", encoding="utf-8")
    mypy = [sys.executable, "-m", "mypy", "--strict", "--no-incremental", "--config-file=", "--python-executable"]
    checked = subprocess.run(
        [*mypy, python, program.name], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    errors = [line for line in checked.stdout.splitlines() if ": error: " in line]
    first = PROGRAM.count("\n") + 1
    assert [int(line.split(":")[1]) for line in errors] == [*range(first, first + len(TYPE_ERRORS))], checked.stdout
    for line, word in zip(errors, TYPE_ERRORS.values(), strict=True):
        assert word in line
