"""Streams in fixed groups, dealt to threads.

The streams of a batch share nothing but the weights. So they are cut into groups of `GROUP_SIZE` streams, and each group
is computed by one thread from beginning to end. No operation waits for a slower core, as it does where each one is
divided among all cores. What a group computes, and the order in which the results of groups are added, depends on
the batch alone: the same numbers come out of any number of threads.
"""

import torch

from charrnn.rnn.worker_pool import WorkerPool

GROUP_SIZE = 8  # streams


def stream_groups(batch: int) -> list[slice]:
    """Return the groups of B streams."""
    return [slice(start, min(start + GROUP_SIZE, batch)) for start in range(0, batch, GROUP_SIZE)]


def torch_worker_pool(threads: int) -> WorkerPool:
    """Return threads in which torch uses a single thread and flushes denormal numbers to zero."""
    return WorkerPool(threads, _prepare)


def _prepare() -> None:
    torch.set_num_threads(1)  # both are settings of each thread
    torch.set_flush_denormal(True)
