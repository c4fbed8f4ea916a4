"""A lock that allows one process at a time to write a file."""

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from charrnn.errors import BusyError
from charrnn.io.atomic_io import resolve_target, write_error

if TYPE_CHECKING:
    from filelock import FileLock


class Lock:
    """A lock on a file and the files that belong to it. The system releases it when the process dies.

    Args:
        path: Path of the file, which need not exist. Missing directories are created.

    Raises:
        BusyError: If another process holds the lock.
        FileError: If the lock file cannot be created.
    """

    def __init__(self, path: Path) -> None:
        import filelock

        target = resolve_target(path)
        self._created = [parent for parent in target.parents if not parent.exists()]  # innermost directory first
        self._file = target.with_name(f".{target.name}.lock")
        existed = self._file.exists()
        self._lock: FileLock = filelock.FileLock(self._file, timeout=0, thread_local=False)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
        except filelock.Timeout:
            raise BusyError(
                str(path), "another charrnn process is writing it", "wait until it ends, or give another name with -o"
            ) from None
        except OSError as error:
            self._lock.release()
            if not existed:
                self._remove()
            raise write_error(self._file, error) from None

    def release(self) -> None:
        """Release the lock. A second call does nothing."""
        if self._lock.is_locked:
            self._remove()
            self._lock.release()

    def _remove(self) -> None:
        """Delete the lock file, and the created directories if they are still empty."""
        with suppress(OSError):  # Windows does not delete open files; a leftover lock file is harmless
            self._file.unlink(missing_ok=True)
        with suppress(OSError):
            for directory in self._created:
                directory.rmdir()
