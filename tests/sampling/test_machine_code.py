"""Machine code is kept on disk, and nothing that happens to it there does harm."""

import ctypes
from pathlib import Path

import pytest

from charrnn.sampling import machine_code
from charrnn.sampling.machine_code import MachineCode, Source

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
    monkeypatch.setattr(machine_code.binding, "get_host_cpu_name", lambda: "another")
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


def test_where_nothing_can_be_kept_it_is_made_each_time(folder: Path) -> None:
    folder.write_bytes(b"no folder")
    compiler = Compiler()
    assert answer(compiler) == answer(compiler) == 42
    assert compiler.asked == 2


def test_where_the_first_folder_cannot_be_written_the_next_one_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    folders = [tmp_path / "file", tmp_path / "folder"]
    monkeypatch.setattr(machine_code, "_folders", lambda: folders)
    compiler = Compiler()
    assert answer(compiler) == answer(compiler) == 42
    assert compiler.asked == 1
    assert len(list(folders[1].iterdir())) == 1


def test_without_a_chosen_folder_the_users_own_comes_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NUMBA_CACHE_DIR")
    monkeypatch.delenv("LOCALAPPDATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert machine_code._folders() == [Path(machine_code.__file__).parent / "__pycache__", tmp_path / "charrnn"]


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
