"""Files written whole: a reader, a crash or a full disk never meets half of one.

The only module that writes files; the mode follows the umask, and a symbolic link stays one.
"""

import os
import stat
from pathlib import Path

from charrnn.errors import FileError


def write_whole(path: Path, data: bytes) -> None:
    """Writes a file so that a reader, a crash or a full disk never meets half of it; the mode follows the umask.

    Raises:
        FileError: it cannot be written; what was there before is untouched.
    """
    target = _target(path)
    temporary = target.with_name(_temporary(target))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
        _sync_folder(target.parent)
    except OSError as error:
        raise _unwritable(path, error) from None


def check_writable(path: Path) -> None:
    """Makes sure, before hours are spent, that a file can be written at ``path``; leaves nothing behind.

    Raises:
        FileError: no regular file can be written there.
    """
    target = _target(path)
    try:
        there = next(folder for folder in target.parents if folder.exists())  # the others are made when it is saved
        probe = there / _temporary(target)  # by its own name, which may be too long
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise _unwritable(path, error) from None


def _temporary(target: Path) -> str:
    return f".{target.name}.{os.getpid()}.tmp"


def _target(path: Path) -> Path:
    """The regular file behind ``path``, which may be a symbolic link and may not exist yet."""
    target = path.resolve()
    try:
        if not stat.S_ISREG(target.stat().st_mode):
            raise FileError(str(path), "is not a regular file", "name a file that can be replaced")
    except FileNotFoundError:
        pass
    except OSError as error:
        raise _unwritable(path, error) from None
    return target


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # a folder cannot be opened there, and a rename is durable without
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unwritable(path: Path, error: OSError) -> FileError:
    reason = f"cannot be written ({(error.strerror or str(error)).lower()})"
    return FileError(str(path), reason, "choose another place")
