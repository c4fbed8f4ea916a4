"""Writes files atomically: other processes see the old file or the new one, even after a crash or on a full disk.

The mode of a new file follows the umask. Symbolic links are followed.
"""

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import IO

from charrnn.errors import FileError

_BACKUP_SUFFIX = ".old"  # appended to the name of a replaced file that is kept


def write_atomic(path: Path, data: bytes, *, keep_backup: bool = False) -> None:
    """Write a file atomically.

    Args:
        path: Path of the file. A symbolic link is followed.
        data: Contents of the file.
        keep_backup: Whether to keep a replaced file at `backup_path`. A crash between the two renames leaves only the
            backup.

    Raises:
        FileError: If the file cannot be written. An existing file is unchanged.
    """
    target = resolve_target(path)
    temporary = target.with_name(_temporary_name(target))
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
        _sync_directory(target.parent)
    except OSError as error:
        raise write_error(path, error) from None


class AtomicWriter:
    """Writer of a file in several parts. The file has a hidden temporary name until it is complete.

    Args:
        path: Path of the complete file.

    Attributes:
        file: The open temporary file.

    Raises:
        OSError: If the file cannot be written. All methods raise it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        # No process id in the name: the caller's lock allows only one writer.
        self._temporary = path.with_name(f".{path.name}.tmp")
        path.parent.mkdir(parents=True, exist_ok=True)
        self.file = open(self._temporary, "w+b", buffering=0)  # noqa: SIM115  # closed by `commit` or `discard`

    def write(self, data: bytes | memoryview) -> None:
        """Append bytes."""
        remaining = memoryview(data)
        while remaining:
            remaining = remaining[self.file.write(remaining) :]

    def commit(self) -> IO[bytes]:
        """Rename the file to ``path``, replacing an existing file, and return it opened for reading."""
        self.file.close()  # Windows does not rename open files
        os.replace(self._temporary, self.path)
        return open(self.path, "rb", buffering=0)

    def discard(self) -> None:
        """Delete the temporary file."""
        self.file.close()
        self._temporary.unlink(missing_ok=True)


def backup_path(path: Path) -> Path:
    """Return the path of the backup of ``path``."""
    target = path.resolve()
    return target.with_name(target.name + _BACKUP_SUFFIX)


def remove(path: Path) -> None:
    """Delete a file if it exists.

    Raises:
        FileError: If the file cannot be deleted.
    """
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise write_error(path, error) from None


def remove_leftovers(path: Path) -> None:
    """Delete the temporary files of killed processes. The caller must hold the lock of ``path``."""
    target = path.resolve()
    with suppress(OSError):  # for example, the directory does not exist yet
        for leftover in target.parent.iterdir():
            if leftover.name.startswith(f".{target.name}.") and leftover.suffix == ".tmp":
                leftover.unlink(missing_ok=True)


def check_writable(path: Path) -> None:
    """Check that a file can be written at ``path``, by creating and deleting a temporary file.

    Raises:
        FileError: If no regular file can be written there.
    """
    target = resolve_target(path)
    try:
        directory = next(parent for parent in target.parents if parent.exists())  # the others are created on saving
        probe = directory / _temporary_name(target)  # as long as the real name, which may be too long
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


def _temporary_name(target: Path) -> str:
    return f".{target.name}.{os.getpid()}.tmp"


def resolve_target(path: Path) -> Path:
    """Return the path of the file with symbolic links resolved. The file need not exist.

    Raises:
        FileError: If the path is not that of a regular file.
    """
    try:
        target = path.resolve()
    except RuntimeError as error:  # a loop of symbolic links
        raise write_error(path, OSError(errno.ELOOP, str(error))) from None
    try:
        if not stat.S_ISREG(target.stat().st_mode):
            raise FileError(str(path), "is not a regular file", "choose another path")
    except FileNotFoundError:
        pass
    except OSError as error:
        raise write_error(path, error) from None
    return target


def _sync_directory(directory: Path) -> None:
    if os.name == "nt":  # Windows cannot open directories, and its renames are durable without this
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_error(path: Path, error: OSError) -> FileError:
    """Return the FileError for a file that cannot be written."""
    reason = f"cannot be written ({(error.strerror or str(error)).lower()})"
    disk_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return FileError(str(path), reason, "free some disk space and try again" if disk_full else "choose another path")
