"""One writer at a time for a file and those that belong to it."""

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from charrnn.errors import BusyError
from charrnn.io.atomic_io import resolve_target, write_error

if TYPE_CHECKING:
    from filelock import FileLock


class Lock:
    """The right to write a file and those that belong to it; the system takes it from a process that dies.

    Args:
        path: the file, which need not exist; its folder is made.

    Raises:
        BusyError: another process has it.
        FileError: no lock can be made there.
    """

    def __init__(self, path: Path) -> None:
        import filelock

        target = resolve_target(path)
        self._made = [folder for folder in target.parents if not folder.exists()]  # the innermost first
        self._file = target.with_name(f".{target.name}.lock")
        self._lock: FileLock = filelock.FileLock(self._file, timeout=0, thread_local=False)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
        except filelock.Timeout:
            raise BusyError(str(path), "another charrnn is training it", "let it end, or choose another -o") from None
        except OSError as error:
            raise write_error(path, error) from None

    def release(self) -> None:
        """Gives the right back; does nothing the second time."""
        if self._lock.is_locked:
            with suppress(OSError):  # Windows deletes no open file; it stays, and does no harm
                self._file.unlink(missing_ok=True)
            self._lock.release()
            with suppress(OSError):  # only what is empty: nothing came of what was to be written
                for folder in self._made:
                    folder.rmdir()
