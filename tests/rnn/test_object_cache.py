"""Compiled code is cached on disk; damaged or missing cache files do no harm."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llvmlite import binding, ir

from charrnn.errors import CacheWarning
from charrnn.rnn import compiled_rnn
from charrnn.rnn.backend import DecoderSelector
from charrnn.rnn.compiled_rnn import CompiledRNN
from charrnn.rnn.kernels import decode, object_cache
from charrnn.rnn.kernels.jit import Kernel, load_kernels
from charrnn.rnn.kernels.object_cache import Target
from charrnn.rnn.kernels.simd import I64, Function, Parameters
from charrnn.rnn.numpy_rnn import NumPyRNN
from tests.conftest import POSIX, environment, make_checkpoint

PARAMETERS: dict[str, Parameters] = {"answer": {"result": I64, "number": int}}


class Build:
    """Builds a kernel that returns 42 plus a number, and counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, target: Target) -> ir.Module:
        self.calls += 1
        module = ir.Module("answer")
        f = Function(module, "answer", PARAMETERS["answer"])
        f["result"].store(f["number"] + 42)
        f.finish()
        return module


@pytest.fixture(autouse=True)
def cache_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of the cached code."""
    monkeypatch.setenv(object_cache.CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.delenv("LOCALAPPDATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    return tmp_path / "cache"


def answer(build: Build, target: Target | None = None) -> int:
    result = np.zeros(1, dtype=np.int64)
    load_kernels("answer", PARAMETERS, build, target)["answer"](result=result, number=0)
    return int(result[0])


def test_a_kernel_is_compiled_once_and_then_cached(cache_dir: Path) -> None:
    build = Build()
    assert [answer(build) for _ in range(3)] == [42] * 3
    assert build.calls == 1
    assert [file.name.split("-")[0] for file in cache_dir.iterdir()] == ["answer"]


def test_a_kernel_is_compiled_again_when_a_source_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build = Build()
    monkeypatch.setattr(object_cache, "_SOURCE_DIR", tmp_path / "kernels")
    (tmp_path / "kernels").mkdir()
    for name in ("kernels/simd.py", "cells.py", "tanh_approx.py"):
        calls = build.calls
        for text in ("one", "one", "other"):
            (tmp_path / name).write_text(text, encoding="utf-8")
            object_cache._source_digest.cache_clear()
            answer(build)
        assert build.calls >= calls + 1
    object_cache._source_digest.cache_clear()


def test_a_kernel_is_compiled_again_for_another_processor() -> None:
    build = Build()
    assert answer(build) == answer(build, Target(Target.host().cpu, "")) == 42
    assert build.calls == 2


@pytest.mark.parametrize("damage", ["empty", "short", "bit", "text", "another name", "huge", "pipe"])
def test_a_damaged_file_is_reported_replaced_and_not_run(damage: str, cache_dir: Path) -> None:
    build = Build()
    answer(build)
    (file,) = cache_dir.iterdir()
    data = file.read_bytes()
    flipped = data[:200] + bytes([data[200] ^ 1]) + data[201:]
    if damage == "another name":
        answer(build, Target(Target.host().cpu, ""))
        (other,) = set(cache_dir.iterdir()) - {file}
        other.replace(file)
    elif damage == "huge":
        os.truncate(file, 1 << 40)
    elif damage == "pipe":
        file.unlink()
        os.mkfifo(file)
    else:
        file.write_bytes({"empty": b"", "short": data[:-1], "bit": flipped, "text": b"no machine code"}[damage])
    calls = build.calls
    with pytest.warns(CacheWarning, match=rf"^{file}: is damaged and not used; it is written again$"):
        assert answer(build) == 42
    assert build.calls == calls + 1
    if damage != "pipe":
        assert file.read_bytes() == data


def test_a_damaged_file_is_replaced_if_a_later_directory_has_a_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    build = Build()
    monkeypatch.setattr(object_cache, "_directories", lambda: [second])
    answer(build)
    monkeypatch.setattr(object_cache, "_directories", lambda: [first, second])
    (copy,) = second.iterdir()
    first.mkdir()
    (first / copy.name).write_bytes(b"damaged")
    with pytest.warns(CacheWarning, match="is damaged"):
        assert answer(build) == 42
    assert (first / copy.name).read_bytes() == copy.read_bytes()
    assert answer(build) == 42  # without a warning
    assert build.calls == 1


@POSIX
def test_a_file_that_everybody_may_write_is_not_run(cache_dir: Path) -> None:
    build = Build()
    answer(build)
    (file,) = cache_dir.iterdir()
    file.chmod(0o666)
    assert answer(build) == 42
    assert build.calls == 2
    assert not file.stat().st_mode & 0o002
    assert answer(build) == 42
    assert build.calls == 2


def test_a_kernel_is_compiled_each_time_if_the_cache_is_unwritable(cache_dir: Path) -> None:
    cache_dir.write_bytes(b"not a directory")
    build = Build()
    assert answer(build) == answer(build) == 42
    assert build.calls == 2


def test_the_next_directory_is_used_if_the_first_is_unwritable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    directories = [tmp_path / "file", tmp_path / "directory"]
    monkeypatch.setattr(object_cache, "_directories", lambda: directories)
    build = Build()
    assert answer(build) == answer(build) == 42
    assert build.calls == 1
    assert len(list(directories[1].iterdir())) == 1


def test_the_user_cache_comes_second_and_must_be_an_absolute_path(
    cache_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert object_cache._directories() == [cache_dir]
    monkeypatch.delenv(object_cache.CACHE_VARIABLE)
    package_cache, user_cache = Path(object_cache.__file__).parent / "__pycache__", tmp_path / "user" / "charrnn"
    assert object_cache._directories() == [package_cache, user_cache]
    monkeypatch.setenv("XDG_CACHE_HOME", "somewhere")
    assert object_cache._directories() == [package_cache]


def test_a_processor_unknown_to_llvm_is_an_import_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(target: Target) -> None:
        raise RuntimeError("no such processor")

    monkeypatch.setattr(Target, "machine", fail)
    with pytest.raises(ImportError, match="no such processor"):
        answer(Build())


@pytest.mark.parametrize("error", [OSError("no library"), RuntimeError("another version"), AttributeError("old")])
def test_numpy_is_used_if_llvmlite_is_broken(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr(binding, "initialize_native_target", fail)
    for name in [
        name for name in sys.modules if name.startswith(("charrnn.rnn.kernels", "charrnn.rnn.compiled_rnn"))
    ]:
        monkeypatch.delitem(sys.modules, name)
    network = DecoderSelector(make_checkpoint(cell="rnn"), lambda: pytest.fail("notice")).choose("int8", 1e9)
    assert isinstance(network, NumPyRNN)


def test_a_missing_function_is_an_import_error() -> None:
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
def test_a_kernel_rejects_arguments_of_wrong_types(arguments: dict[str, Any]) -> None:
    kernel = load_kernels("answer", PARAMETERS, Build())["answer"]
    with pytest.raises(TypeError):
        kernel(**arguments)


def forget_loaded_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget the kernels that this process has loaded, to simulate a later process."""
    monkeypatch.setattr(compiled_rnn, "decoding_kernel", decode.decoding_kernel.__wrapped__)


def test_a_compilation_is_announced_once_and_cached_for_the_next_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, notices = make_checkpoint(cell="rnn"), []
    forget_loaded_kernels(monkeypatch)
    for _ in range(2):
        network = DecoderSelector(model, lambda: notices.append(1)).choose("int8", 1e9)
        assert isinstance(network, CompiledRNN)
    assert notices == [1]
    check = (
        "from charrnn.rnn.backend import DecoderSelector; from tests.conftest import make_checkpoint\n"
        "DecoderSelector(make_checkpoint(cell='rnn'), lambda: print('compiles')).choose('int8', 1e9); print('done')"
    )
    result = subprocess.run([sys.executable, "-c", check], capture_output=True, env=environment(), check=True)
    assert result.stdout.split() == [b"done"]


def test_numpy_is_used_without_a_notice_if_llvmlite_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "charrnn.rnn.compiled_rnn", None)
    network = DecoderSelector(make_checkpoint(cell="rnn"), lambda: pytest.fail("notice")).choose("int8", 1e9)
    assert not isinstance(network, CompiledRNN)


def test_nothing_is_compiled_if_numpy_is_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    model, notices = make_checkpoint(cell="rnn"), []
    forget_loaded_kernels(monkeypatch)
    decoders = DecoderSelector(model, lambda: notices.append(1))
    assert isinstance(decoders.choose("int8", 2000), NumPyRNN)
    assert notices == []
    assert isinstance(decoders.choose("int8", 1e6), CompiledRNN)
    assert notices == [1]
    assert isinstance(DecoderSelector(model).choose("int8", 2000), CompiledRNN)  # it is cached by now


def test_a_kernel_keeps_the_code_alive(cache_dir: Path) -> None:
    kernel: Kernel = load_kernels("answer", PARAMETERS, Build())["answer"]
    for _ in range(3):
        load_kernels("answer", PARAMETERS, Build())
    result = np.zeros(1, dtype=np.int64)
    kernel(result=result, number=1)
    assert result[0] == 43
