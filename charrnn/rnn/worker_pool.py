"""A pool of threads for work that releases the GIL."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Event, Thread
from typing import TypeVar

_T = TypeVar("_T")


class WorkerPool:
    """A pool of threads. They are started on first use, and again after a fork.

    Args:
        threads: The number of threads.
        prepare: Called once in each thread before any work. Without it, a single call runs in the caller's thread.
    """

    def __init__(self, threads: int, prepare: Callable[[], None] | None = None) -> None:
        self.threads, self._prepare = threads, prepare
        self._process = 0
        self._pool: ThreadPoolExecutor | None = None

    def run(self, calls: Sequence[Callable[[], _T]]) -> list[_T]:
        """Call functions in parallel, and return their results in order."""
        if self._prepare is None and len(calls) == 1:
            return [calls[0]()]
        if self._pool is None or self._process != os.getpid():  # threads don't survive a fork
            self._process, self._pool = os.getpid(), ThreadPoolExecutor(self.threads, initializer=self._prepare)
        return list(self._pool.map(lambda call: call(), calls))


def check_threads(count: int) -> None:
    """Check that this many threads can be started. Libraries such as OpenMP end the process if they cannot.

    Raises:
        RuntimeError: If a thread cannot be started.
    """
    end, threads = Event(), list[Thread]()
    try:
        for _ in range(count):
            thread = Thread(target=end.wait, daemon=True)
            thread.start()
            threads.append(thread)
    finally:
        end.set()
        for thread in threads:
            thread.join()


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
