"""Writes files atomically: other processes see the old file or the new one, even after a crash or on a full disk.

A file is written under a temporary name in the same directory, and then renamed. The temporary name is random, and
the file must not exist before. So processes and threads never write to the same temporary file, or through a symbolic
link. A writer locks its temporary file, so `remove_leftovers` deletes only the files of processes that have ended.

The mode of a new file follows the umask. Symbolic links are followed.
"""

import errno
import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import IO

from charrnn.errors import FileError

try:
    import fcntl
except ImportError:  # Windows, which does not delete open files, so no locks are needed
    fcntl = None  # type: ignore[assignment]

_BACKUP_SUFFIX = ".old"  # appended to the name of a replaced file that is kept
_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)


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
    try:
        writer = AtomicWriter(target)
        try:
            writer.write(data)
            os.fsync(writer.file.fileno())
            writer.commit(keep_backup=keep_backup and target.exists())
        finally:
            writer.discard()
        _sync_directory(target.parent)
    except OSError as error:
        raise write_error(path, error) from None


class AtomicWriter:
    """Writer of a file in several parts. The file has a hidden temporary name until it is complete.

    Args:
        path: Path of the complete file. Missing directories are created.

    Attributes:
        file: The open temporary file, for reading and writing, without a buffer.

    Raises:
        OSError: If the file cannot be written. All methods raise it.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._committed = path, False
        path.parent.mkdir(parents=True, exist_ok=True)
        self._temporary, self.file = _create_temporary(path)

    def write(self, data: bytes | memoryview) -> None:
        """Append bytes."""
        remaining = memoryview(data)
        while remaining:
            remaining = remaining[self.file.write(remaining) :]

    def commit(self, *, keep_backup: bool = False) -> None:
        """Rename the file to ``path``, and close it.

        Args:
            keep_backup: Whether to rename an existing file to `backup_path`. Otherwise it is replaced.
        """
        if fcntl is None:
            self.file.close()  # Windows does not rename open files
        _replace(self._temporary, self.path, keep_backup)
        self._committed = True
        with suppress(OSError):  # the file is complete
            self.file.close()  # only now, because this releases the lock

    def discard(self) -> None:
        """Delete the temporary file, unless it was committed."""
        try:
            self.file.close()
        finally:
            if not self._committed:
                self._temporary.unlink(missing_ok=True)


def resolve(path: Path) -> Path:
    """Return the absolute path with symbolic links resolved. The file need not exist.

    Raises:
        FileError: If the path contains a loop of links or a NUL, or the working directory was deleted.
    """
    try:
        return path.resolve()
    except RuntimeError:
        reason = "is part of a loop of symbolic links"
    except (OSError, ValueError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).lower()
    raise FileError(str(path), reason, "choose another path")


def backup_path(path: Path) -> Path:
    """Return the path of the backup of ``path``."""
    target = resolve(path)
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
    """Delete temporary files beside ``path`` whose processes have ended."""
    target = resolve(path)
    with suppress(OSError):  # for example, the directory does not exist yet
        for leftover in target.parent.iterdir():
            if leftover.name.startswith(f".{target.name}.") and leftover.suffix == ".tmp":
                with suppress(OSError):  # it is still being written, or another process has deleted it
                    _remove_unlocked(leftover)


def check_writable(path: Path) -> None:
    """Check that a file can be written at ``path``, by creating an anonymous temporary file in its directory.

    Raises:
        FileError: If no regular file can be written there.
    """
    target = resolve_target(path)
    try:
        with suppress(FileNotFoundError):
            os.stat(_temporary_path(target))  # the name may be too long
        directory = next(parent for parent in target.parents if parent.exists())  # the others are created on saving
        tempfile.TemporaryFile(dir=directory).close()
    except OSError as error:
        raise write_error(path, error) from None


def _temporary_path(target: Path) -> Path:
    """Return a random path beside ``target``."""
    return target.with_name(f".{target.name}.{os.urandom(8).hex()}.tmp")


def _create_temporary(target: Path) -> tuple[Path, IO[bytes]]:
    """Create and lock a file with a random name beside ``target``, and return its path and the open file."""
    while True:
        path = _temporary_path(target)
        try:
            descriptor = os.open(path, _CREATE, 0o666)
        except FileExistsError:
            continue
        file = os.fdopen(descriptor, "w+b", buffering=0)
        try:
            if fcntl is not None:
                with suppress(OSError):  # a file system without locks; `remove_leftovers` then deletes nothing either
                    fcntl.flock(file, fcntl.LOCK_EX)
            if os.fstat(descriptor).st_nlink:
                return path, file
        except BaseException:
            file.close()
            path.unlink(missing_ok=True)
            raise
        file.close()  # `remove_leftovers` found the file before it was locked


def _remove_unlocked(path: Path) -> None:
    """Delete a file if no process has it locked.

    Raises:
        OSError: If a process has it locked, or it cannot be deleted.
    """
    if fcntl is None:
        path.unlink()
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()
    finally:
        os.close(descriptor)


def _replace(temporary: Path, target: Path, keep_backup: bool) -> None:
    if keep_backup:
        os.replace(target, backup_path(target))
    try:
        os.replace(temporary, target)
    except OSError:
        if keep_backup:
            os.replace(backup_path(target), target)
        raise


def resolve_target(path: Path) -> Path:
    """Return the path of the file with symbolic links resolved. The file need not exist.

    Raises:
        FileError: If the path is not that of a regular file.
    """
    target = resolve(path)
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
