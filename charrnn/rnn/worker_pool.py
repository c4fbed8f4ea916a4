"""Threads that compute side by side, for work that gives up the interpreter's lock."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_T = TypeVar("_T")


class WorkerPool:
    """Some threads, started when they are first needed, and again after a fork.

    Args:
        threads: how many.
        prepare: called by each thread first; with it, all work is done by these threads, and without it a single
            piece of work by the caller's.
    """

    def __init__(self, threads: int, prepare: Callable[[], None] | None = None) -> None:
        self.threads, self._prepare = threads, prepare
        self._process = 0
        self._pool: ThreadPoolExecutor | None = None

    def run(self, works: Sequence[Callable[[], _T]]) -> list[_T]:
        """Call functions, and return their results in order."""
        if self._prepare is None and len(works) == 1:
            return [works[0]()]
        if self._pool is None or self._process != os.getpid():  # threads don't survive a fork
            self._process, self._pool = os.getpid(), ThreadPoolExecutor(self.threads, initializer=self._prepare)
        return list(self._pool.map(lambda work: work(), works))


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
