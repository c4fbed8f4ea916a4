"""Files written whole: a reader, a crash or a full disk never meets half of one.

The only module that writes files; the mode follows the umask, and a symbolic link stays one.
"""

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import IO

from charrnn.errors import FileError

_BACKUP_SUFFIX = ".old"  # what is put behind the name of a file that a newer one replaced, where the old one is kept


def write_atomic(path: Path, data: bytes, *, keep_backup: bool = False) -> None:
    """Writes a file so that a reader, a crash or a full disk never meets half of it.

    Args:
        path: where; a symbolic link is followed.
        data: all of the file.
        keep_backup: what is replaced stays, as `old` names it. A crash between the two renames leaves it alone there.

    Raises:
        FileError: it cannot be written; what was there before is untouched.
    """
    target = resolve_target(path)
    temporary = target.with_name(_temporary(target))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            _replace(temporary, target, keep_backup and target.exists())
        finally:
            temporary.unlink(missing_ok=True)
        _sync_folder(target.parent)
    except OSError as error:
        raise write_error(path, error) from None


class AtomicWriter:
    """A file that is written little by little and gets its name when it is whole; until then a hidden one.

    Args:
        path: its name.

    Raises:
        OSError: it cannot be written; so do all methods.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._temporary = path.with_name(f".{path.name}.tmp")  # the same for all processes: one writer at a time
        path.parent.mkdir(parents=True, exist_ok=True)
        self.file = open(self._temporary, "w+b", buffering=0)  # noqa: SIM115  # read on under its new name

    def write(self, data: bytes | memoryview) -> None:
        """Adds to its end."""
        left = memoryview(data)
        while left:
            left = left[self.file.write(left) :]

    def commit(self) -> IO[bytes]:
        """Gives it its name, and opens it for reading; whatever has that name is replaced."""
        self.file.close()  # Windows renames no open file
        os.replace(self._temporary, self.path)
        return open(self.path, "rb", buffering=0)

    def discard(self) -> None:
        """Deletes it."""
        self.file.close()
        self._temporary.unlink(missing_ok=True)


def backup_path(path: Path) -> Path:
    """Where the file lies that was replaced by the one at ``path`` and kept."""
    target = path.resolve()
    return target.with_name(target.name + _BACKUP_SUFFIX)


def remove(path: Path) -> None:
    """Deletes a file, if it is there.

    Raises:
        FileError: it cannot be deleted.
    """
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise write_error(path, error) from None


def remove_leftovers(path: Path) -> None:
    """Deletes what writers of this file left behind when they were killed; for whoever holds its lock."""
    target = path.resolve()
    with suppress(OSError):  # such as a folder that isn't there yet
        for leftover in target.parent.iterdir():
            if leftover.name.startswith(f".{target.name}.") and leftover.suffix == ".tmp":
                leftover.unlink(missing_ok=True)


def check_writable(path: Path) -> None:
    """Makes sure, before hours are spent, that a file can be written at ``path``; leaves nothing behind.

    Raises:
        FileError: no regular file can be written there.
    """
    target = resolve_target(path)
    try:
        there = next(folder for folder in target.parents if folder.exists())  # the others are made when it is saved
        probe = there / _temporary(target)  # by its own name, which may be too long
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise write_error(path, error) from None


def _replace(temporary: Path, target: Path, keep_backup: bool) -> None:
    if keep_backup:
        os.replace(target, backup_path(target))
    try:
        os.replace(temporary, target)
    except OSError:
        if keep_backup:
            os.replace(backup_path(target), target)
        raise


def _temporary(target: Path) -> str:
    return f".{target.name}.{os.getpid()}.tmp"


def resolve_target(path: Path) -> Path:
    """Return the regular file behind ``path``, which may be a symbolic link and may not exist yet."""
    try:
        target = path.resolve()
    except RuntimeError as error:  # how Python says that links lead in a circle
        raise write_error(path, OSError(errno.ELOOP, str(error))) from None
    try:
        if not stat.S_ISREG(target.stat().st_mode):
            raise FileError(str(path), "is not a regular file", "name a file that can be replaced")
    except FileNotFoundError:
        pass
    except OSError as error:
        raise write_error(path, error) from None
    return target


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # a folder cannot be opened there, and a rename is durable without
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_error(path: Path, error: OSError) -> FileError:
    """Return the error of a file that cannot be written."""
    reason = f"cannot be written ({(error.strerror or str(error)).lower()})"
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return FileError(str(path), reason, "make room and try again" if full else "choose another place")
