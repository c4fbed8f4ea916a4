"""Atomic writes: the order of system calls makes them safe against crashes."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from charrnn.errors import FileError
from charrnn.io import atomic_io
from tests.conftest import POSIX, environment


def test_the_file_is_synced_before_the_rename_and_the_directory_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls_made: list[str] = []

    def name_of(path: str | Path) -> str:
        return re.sub(r"^\.m\.[0-9a-f]{16}\.tmp$", "temporary", Path(path).name)

    original_fsync, original_replace = os.fsync, os.replace

    def fsync(descriptor: int) -> None:
        calls_made.append(f"fsync {name_of(os.readlink(f'/proc/self/fd/{descriptor}'))}")
        original_fsync(descriptor)

    def replace(source: Path, target: Path) -> None:
        calls_made.append(f"{name_of(source)} -> {name_of(target)}")
        original_replace(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    for data in (b"one", b"two"):
        atomic_io.write_atomic(tmp_path / "m", data, keep_backup=True)
    writing, naming, closing = "fsync temporary", "temporary -> m", f"fsync {tmp_path.name}"
    assert calls_made == [writing, naming, closing, writing, "m -> m.old", naming, closing]
    assert [(tmp_path / name).read_bytes() for name in ("m", "m.old")] == [b"two", b"one"]


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
def test_the_system_calls_have_the_same_order(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from charrnn.io import atomic_io; "
        "atomic_io.write_atomic(Path(sys.argv[1]), b'x')"
    )
    command = ["strace", "-f", "-y", "-e", "trace=write,fsync,rename,renameat,renameat2", sys.executable, "-c", code]
    traced = subprocess.run([*command, str(tmp_path / "m")], env=environment(), capture_output=True, timeout=60)
    calls = [re.sub(r"\(.*", "", line) for line in traced.stderr.decode().splitlines() if str(tmp_path) in line]
    assert [call.split()[-1] for call in calls] == ["write", "fsync", "rename", "fsync"]


@pytest.mark.parametrize("failing", [1, 2])
def test_a_failed_rename_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int) -> None:
    atomic_io.write_atomic(tmp_path / "m", b"one")
    original, calls = os.replace, 0

    def replace(*args: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == failing:
            raise OSError(5, "Input/output error")
        original(*args)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(FileError, match="cannot be written"):
        atomic_io.write_atomic(tmp_path / "m", b"two", keep_backup=True)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"m": b"one"}


def test_the_backup_lies_next_to_the_target_of_a_link(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "far" / "m")
    for data in (b"one", b"two"):
        atomic_io.write_atomic(tmp_path / "link", data, keep_backup=True)
    assert (tmp_path / "link").is_symlink()
    assert atomic_io.backup_path(tmp_path / "link") == tmp_path / "far" / "m.old"
    assert atomic_io.backup_path(tmp_path / "link").read_bytes() == b"one"


@POSIX
def test_a_temporary_file_that_is_deleted_before_it_is_locked_is_created_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    original, deleted = fcntl.flock, []

    def flock(*args: Any) -> None:
        if not deleted:
            (temporary,) = tmp_path.glob(".m.*.tmp")
            temporary.unlink()  # as `remove_leftovers` of another process does in this instant
            deleted.append(temporary)
        original(*args)

    monkeypatch.setattr(fcntl, "flock", flock)
    atomic_io.write_atomic(tmp_path / "m", b"data")
    assert (tmp_path / "m").read_bytes() == b"data"
    assert deleted


@POSIX
def test_a_symbolic_link_at_a_temporary_name_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "victim").write_bytes(b"precious")
    names = iter([b"1" * 8, b"2" * 8])
    monkeypatch.setattr(os, "urandom", lambda size: next(names))
    (tmp_path / f".m.{(b'1' * 8).hex()}.tmp").symlink_to(tmp_path / "victim")
    atomic_io.write_atomic(tmp_path / "m", b"data")
    assert (tmp_path / "m").read_bytes() == b"data"
    assert (tmp_path / "victim").read_bytes() == b"precious"
