"""Compiled code is kept on disk, and nothing that happens to it there does harm."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llvmlite import binding, ir

from charrnn.rnn import compiled_rnn
from charrnn.rnn.backend import DecoderSelector
from charrnn.rnn.compiled_rnn import CompiledRNN
from charrnn.rnn.kernels import decode, object_cache
from charrnn.rnn.kernels.jit import Kernel, load_kernels
from charrnn.rnn.kernels.object_cache import Target
from charrnn.rnn.kernels.simd import I64, Function, Parameters
from charrnn.rnn.numpy_rnn import NumPyRNN
from tests.conftest import environment, make_checkpoint

PARAMETERS: dict[str, Parameters] = {"answer": {"result": I64, "number": int}}


class Build:
    """Writes a kernel that answers 42 plus a number, and counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, target: Target) -> ir.Module:
        self.asked += 1
        module = ir.Module("answer")
        f = Function(module, "answer", PARAMETERS["answer"])
        f["result"].store(f["number"] + 42)
        f.finish()
        return module


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where compiled code is kept."""
    monkeypatch.setenv(object_cache.CACHE_VARIABLE, str(tmp_path / "kept"))
    monkeypatch.delenv("LOCALAPPDATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "own"))
    return tmp_path / "kept"


def answer(build: Build, target: Target | None = None) -> int:
    result = np.zeros(1, dtype=np.int64)
    load_kernels("answer", PARAMETERS, build, target)["answer"](result=result, number=0)
    return int(result[0])


def test_it_is_compiled_once_and_found_from_then_on(folder: Path) -> None:
    build = Build()
    assert [answer(build) for _ in range(3)] == [42] * 3
    assert build.asked == 1
    assert [file.name.split("-")[0] for file in folder.iterdir()] == ["answer"]


def test_it_is_compiled_again_when_a_source_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build = Build()
    monkeypatch.setattr(object_cache, "_SOURCE_DIR", tmp_path / "kernels")
    (tmp_path / "kernels").mkdir()
    for name in ("kernels/simd.py", "cells.py", "tanh_approx.py"):
        asked = build.asked
        for text in ("one", "one", "other"):
            (tmp_path / name).write_text(text, encoding="utf-8")
            object_cache._source_digest.cache_clear()
            answer(build)
        assert build.asked >= asked + 1
    object_cache._source_digest.cache_clear()


def test_it_is_compiled_again_for_another_processor() -> None:
    build = Build()
    assert answer(build) == answer(build, Target(Target.host().cpu, "")) == 42
    assert build.asked == 2


@pytest.mark.parametrize("damage", ["empty", "short", "bit", "text"])
def test_a_damaged_file_is_never_run_but_replaced(damage: str, folder: Path) -> None:
    build = Build()
    answer(build)
    (file,) = folder.iterdir()
    data = file.read_bytes()
    flipped = data[:200] + bytes([data[200] ^ 1]) + data[201:]
    file.write_bytes({"empty": b"", "short": data[:-1], "bit": flipped, "text": b"no machine code"}[damage])
    assert answer(build) == 42
    assert build.asked == 2
    assert file.read_bytes() == data


def test_where_nothing_can_be_written_it_is_compiled_each_time(folder: Path) -> None:
    folder.write_bytes(b"no folder")
    build = Build()
    assert answer(build) == answer(build) == 42
    assert build.asked == 2


def test_where_the_first_folder_cannot_be_written_the_next_one_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    folders = [tmp_path / "file", tmp_path / "folder"]
    monkeypatch.setattr(object_cache, "_directories", lambda: folders)
    build = Build()
    assert answer(build) == answer(build) == 42
    assert build.asked == 1
    assert len(list(folders[1].iterdir())) == 1


def test_the_users_own_folder_comes_second_and_is_never_relative_to_where_we_are(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert object_cache._directories() == [folder]
    monkeypatch.delenv(object_cache.CACHE_VARIABLE)
    beside, own = Path(object_cache.__file__).parent / "__pycache__", tmp_path / "own" / "charrnn"
    assert object_cache._directories() == [beside, own]
    monkeypatch.setenv("XDG_CACHE_HOME", "somewhere")
    assert object_cache._directories() == [beside]


def test_a_processor_that_llvm_does_not_know_is_an_import_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(target: Target) -> None:
        raise RuntimeError("no such processor")

    monkeypatch.setattr(Target, "machine", fail)
    with pytest.raises(ImportError, match="no such processor"):
        answer(Build())


@pytest.mark.parametrize("error", [OSError("no library"), RuntimeError("another version"), AttributeError("old")])
def test_a_broken_llvmlite_is_as_good_as_none(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr(binding, "initialize_native_target", fail)
    for name in [
        name for name in sys.modules if name.startswith(("charrnn.rnn.kernels", "charrnn.rnn.compiled_rnn"))
    ]:
        monkeypatch.delitem(sys.modules, name)
    network = DecoderSelector(make_checkpoint(cell="rnn"), lambda: pytest.fail("told")).choose("int8", 1e9)
    assert isinstance(network, NumPyRNN)


def test_a_function_that_is_not_there_is_an_import_error() -> None:
    with pytest.raises(ImportError, match="no function question"):
        load_kernels("answer", {"question": PARAMETERS["answer"]}, Build())


@pytest.mark.parametrize(
    "arguments",
    [
        {"result": np.zeros(1, dtype=np.int32), "number": 0},
        {"result": np.zeros((2, 2), dtype=np.int64).T[::2], "number": 0},
        {"result": np.zeros(1, dtype=np.int64)},
        {"result": np.zeros(1, dtype=np.int64), "number": 0, "more": 1},
        {"result": np.zeros(1, dtype=np.int64), "number": "one"},
        {"result": 0, "number": 0},
    ],
    ids=["another type", "not contiguous", "missing", "unknown", "no number", "no array"],
)
def test_a_kernel_refuses_arguments_that_it_would_misread(arguments: dict[str, Any]) -> None:
    kernel = load_kernels("answer", PARAMETERS, Build())["answer"]
    with pytest.raises(TypeError):
        kernel(**arguments)


def fresh_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget what this process has loaded, as a later process would."""
    monkeypatch.setattr(compiled_rnn, "decoding_kernel", decode.decoding_kernel.__wrapped__)


def test_who_waits_for_a_compilation_is_told_once_and_not_by_the_next_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made, told = make_checkpoint(cell="rnn"), []
    fresh_kernels(monkeypatch)
    for _ in range(2):
        network = DecoderSelector(made, lambda: told.append(1)).choose("int8", 1e9)
        assert isinstance(network, CompiledRNN)
    assert told == [1]
    check = (
        "from charrnn.rnn.backend import DecoderSelector; from tests.conftest import make_checkpoint\n"
        "DecoderSelector(make_checkpoint(cell='rnn'), lambda: print('compiles')).choose('int8', 1e9); print('done')"
    )
    result = subprocess.run([sys.executable, "-c", check], capture_output=True, env=environment(), check=True)
    assert result.stdout.split() == [b"done"]


def test_where_llvmlite_is_missing_nobody_is_told_and_numpy_generates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "charrnn.rnn.compiled_rnn", None)
    network = DecoderSelector(make_checkpoint(cell="rnn"), lambda: pytest.fail("told")).choose("int8", 1e9)
    assert not isinstance(network, CompiledRNN)


def test_nothing_is_compiled_for_what_numpy_does_sooner(monkeypatch: pytest.MonkeyPatch) -> None:
    made, told = make_checkpoint(cell="rnn"), []
    fresh_kernels(monkeypatch)
    decoders = DecoderSelector(made, lambda: told.append(1))
    assert isinstance(decoders.choose("int8", 2000), NumPyRNN)
    assert told == []
    assert isinstance(decoders.choose("int8", 1e6), CompiledRNN)
    assert told == [1]
    assert isinstance(DecoderSelector(made).choose("int8", 2000), CompiledRNN)  # it is on disk by now


def test_a_kernel_keeps_its_code_alive(folder: Path) -> None:
    kernel: Kernel = load_kernels("answer", PARAMETERS, Build())["answer"]
    for _ in range(3):
        load_kernels("answer", PARAMETERS, Build())
    result = np.zeros(1, dtype=np.int64)
    kernel(result=result, number=1)
    assert result[0] == 43
