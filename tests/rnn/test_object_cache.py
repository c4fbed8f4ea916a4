"""Autotuner code is kept on disk, and nothing that happens to it there does harm."""

import ast
import ctypes
import subprocess
import sys
from pathlib import Path

import pytest

from charrnn.rnn import compiled_rnn
from charrnn.rnn.backend import Engines
from charrnn.rnn.compiled_rnn import Compiled
from charrnn.rnn.kernels import object_cache
from charrnn.rnn.kernels.object_cache import MachineCode, Source
from charrnn.rnn.numpy_rnn import NumPyRNN
from tests.conftest import environment, make_checkpoint

ANSWER = """
define i32 @other() {
  ret i32 7
}
define i32 @function() {
  ret i32 42
}
"""


class Compiler:
    """Counts how often it is asked."""

    def __init__(self, module: str = ANSWER) -> None:
        self.asked, self._module = 0, module

    def __call__(self) -> Source:
        self.asked += 1
        return Source(self._module, "function", "", "")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where machine code is kept."""
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "kept"))
    monkeypatch.delenv("LOCALAPPDATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "own"))
    return tmp_path / "kept"


def answer(compiler: Compiler, *sources: Path) -> int:
    code = MachineCode("answer", sources, compiler)
    return int(ctypes.CFUNCTYPE(ctypes.c_int)(code.address)())


def test_it_is_made_once_and_found_from_then_on(folder: Path) -> None:
    compiler = Compiler()
    assert [answer(compiler) for _ in range(3)] == [42] * 3
    assert compiler.asked == 1
    assert [file.name.split("-")[0] for file in folder.iterdir()] == ["answer"]


def test_it_is_made_again_when_its_source_changes(tmp_path: Path) -> None:
    compiler, source = Compiler(), tmp_path / "source.py"
    for text in ("one", "one", "other"):
        source.write_text(text, encoding="utf-8")
        answer(compiler, source)
    assert compiler.asked == 2


@pytest.mark.parametrize("setting", ["NUMBA_CPU_NAME", "NUMBA_OPT"])
def test_it_is_made_again_for_other_settings_of_the_compiler(setting: str, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = Compiler()
    answer(compiler)
    monkeypatch.setenv(setting, "1")
    answer(compiler)
    assert compiler.asked == 2


def test_it_is_made_again_for_another_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = Compiler()
    answer(compiler)
    monkeypatch.setattr(object_cache.binding, "get_host_cpu_name", lambda: "another")
    answer(compiler)
    assert compiler.asked == 2


@pytest.mark.parametrize("damage", ["empty", "short", "bit", "text"])
def test_a_damaged_file_is_replaced(damage: str, folder: Path) -> None:
    compiler = Compiler()
    answer(compiler)
    (file,) = folder.iterdir()
    data = file.read_bytes()
    flipped = data[:200] + bytes([data[200] ^ 1]) + data[201:]
    file.write_bytes({"empty": b"", "short": data[:-1], "bit": flipped, "text": b"no machine code"}[damage])
    assert answer(compiler) == 42
    assert compiler.asked == 2
    assert file.read_bytes() == data


def test_where_nothing_can_be_kept_it_is_made_each_time(folder: Path, tmp_path: Path) -> None:
    folder.write_bytes(b"no folder")
    (tmp_path / "own").write_bytes(b"no folder either")
    compiler = Compiler()
    assert answer(compiler) == answer(compiler) == 42
    assert compiler.asked == 2


def test_where_the_first_folder_cannot_be_written_the_next_one_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    folders = [tmp_path / "file", tmp_path / "folder"]
    monkeypatch.setattr(object_cache, "_folders", lambda: folders)
    compiler = Compiler()
    assert answer(compiler) == answer(compiler) == 42
    assert compiler.asked == 1
    assert len(list(folders[1].iterdir())) == 1


def test_the_users_own_folder_comes_second_and_never_lies_wherever_we_are(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "own" / "charrnn"
    assert object_cache._folders() == [folder, own]
    monkeypatch.delenv("NUMBA_CACHE_DIR")
    beside = Path(object_cache.__file__).parent / "__pycache__"
    assert object_cache._folders() == [beside, own]
    monkeypatch.setenv("XDG_CACHE_HOME", "somewhere")
    assert object_cache._folders() == [beside]


def test_code_that_calls_what_later_processes_lack_is_refused() -> None:
    module = """
    declare i32 @PyGILState_Check()
    define i32 @function() {
      %one = call i32 @PyGILState_Check()
      ret i32 %one
    }
    """
    with pytest.raises(ImportError, match="answer needs PyGILState_Check"):
        answer(Compiler(module))


def test_what_llvm_does_not_take_cannot_be_imported() -> None:
    with pytest.raises(ImportError, match="expected top-level entity"):
        answer(Compiler("no module"))


def test_all_that_the_kernel_is_made_of_counts() -> None:
    """But for what does not tell what is computed."""
    package = Path(compiled_rnn.__file__).parents[1]
    counted = {path.relative_to(package).with_suffix("") for path in compiled_rnn._SOURCES}
    assert all(path.is_file() for path in compiled_rnn._SOURCES)
    for path in ("sampling/kernel", "sampling/blocks", "sampling/choice", "sampling/lanes", "vectors"):
        tree = ast.parse((package / f"{path}.py").read_text(encoding="utf-8"))
        names = {
            name
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("charrnn")
            for name in (node.module, *(f"{node.module}.{alias.name}" for alias in node.names))
        }
        files = {Path(*name.split(".")[1:]) for name in names}
        assert {file for file in files if (package / file).with_suffix(".py").is_file()} <= counted


def test_who_is_told_of_a_compilation_is_told_once_and_the_next_process_needs_no_numba(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made, told = make_checkpoint(cell="rnn"), []
    monkeypatch.setattr(compiled_rnn, "_kernels", {})
    for _ in range(2):
        network = Engines(made.model, made.tensors, lambda: told.append(1)).network("int8", 1e9)
        assert isinstance(network, Compiled)
    assert told == [1]
    monkeypatch.setattr(compiled_rnn, "_kernels", {})  # as a later process finds it
    Engines(made.model, made.tensors, lambda: told.append(2)).network("int8", 1e9)
    assert told == [1]
    check = (
        "import sys; from charrnn.rnn.compiled_rnn import Kernel\n"
        "Kernel('rnn', lambda: print('compiles')); print('numba' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", check], capture_output=True, env=environment(), check=True)
    assert result.stdout.split() == [b"False"]


def test_where_numba_is_missing_nobody_is_told_and_numpy_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    made = make_checkpoint(cell="rnn")
    monkeypatch.setattr(compiled_rnn, "_kernels", {})
    for name in [name for name in sys.modules if name.startswith("charrnn.rnn.kernels.decode")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr(sys.modules["charrnn.sampling"], "kernel", raising=False)
    monkeypatch.setitem(sys.modules, "numba", None)
    network = Engines(made.model, made.tensors, lambda: pytest.fail("told")).network("int8", 1e9)
    assert not isinstance(network, Compiled)


def test_nothing_is_compiled_for_what_numpy_writes_sooner(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made, told = make_checkpoint(cell="rnn"), []
    monkeypatch.setattr(compiled_rnn, "_kernels", {})
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    engines = Engines(made.model, made.tensors, lambda: told.append(1))
    assert isinstance(engines.network("int8", 2000), NumPyRNN)
    assert told == []
    assert isinstance(engines.network("int8", 1e6), Compiled)
    assert told == [1]
    assert isinstance(Engines(made.model, made.tensors).network("int8", 2000), Compiled)  # it lies there by now
