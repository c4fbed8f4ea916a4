"""Fixed groups of streams, each computed by one thread.

The streams of a batch share only the weights. So a batch is divided into groups of `GROUP_SIZE` streams, and one
thread computes all operations of a group. Threads don't wait for each other after every operation, as they do when
each operation is divided among all cores. The groups, and the order in which their results are added, depend only on
the batch size. So results are bit-identical with any number of threads.
"""

from charrnn.rnn.worker_pool import WorkerPool

GROUP_SIZE = 8  # streams


def stream_groups(batch: int) -> list[slice]:
    """Return the groups of B streams, as slices."""
    return [slice(start, min(start + GROUP_SIZE, batch)) for start in range(0, batch, GROUP_SIZE)]


def torch_worker_pool(threads: int) -> WorkerPool:
    """Return a pool of threads in which torch uses one thread each and flushes denormal numbers to zero."""
    return WorkerPool(threads, _prepare)


def _prepare() -> None:
    import torch  # here, because GROUP_SIZE is also used without torch

    torch.set_num_threads(1)  # like the next setting, for the current thread only
    torch.set_flush_denormal(True)
