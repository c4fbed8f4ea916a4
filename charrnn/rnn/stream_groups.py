"""Streams in fixed groups, dealt to threads.

The streams of a batch share nothing but the weights. So they are cut into groups of `GROUP` streams, and each group
is computed by one thread from beginning to end. No operation waits for a slower core, as it does where each one is
divided among all cores. What a group computes, and the order in which the results of groups are added, depends on
the batch alone: the same numbers come out of any number of threads.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

GROUP = 8  # streams

_T = TypeVar("_T")


def groups_of(batch: int) -> list[slice]:
    """Return the groups of B streams."""
    return [slice(start, min(start + GROUP, batch)) for start in range(0, batch, GROUP)]


class ThreadTeam:
    """Threads that compute side by side, each undisturbed by torch's own.

    Args:
        threads: how many, this one included.
    """

    def __init__(self, threads: int) -> None:
        self._pool = ThreadPoolExecutor(threads, initializer=_be_one_thread) if threads > 1 else None

    def run(self, works: Sequence[Callable[[], _T]]) -> list[_T]:
        """Return what some functions return, in their order. Each runs on one thread."""
        if self._pool is None or len(works) == 1:
            with one_thread():
                return [work() for work in works]
        return list(self._pool.map(lambda work: work(), works))


@contextmanager
def one_thread() -> Iterator[None]:
    """Have this thread compute its operations undivided."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _be_one_thread() -> None:
    torch.set_num_threads(1)  # both are settings of each thread
    torch.set_flush_denormal(True)
