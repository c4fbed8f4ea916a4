"""Streams in fixed groups, dealt to threads.

The streams of a batch share nothing but the weights. So they are cut into groups of `GROUP` streams, and each group
is computed by one thread from beginning to end. No operation waits for a slower core, as it does where each one is
divided among all cores. What a group computes, and the order in which the results of groups are added, depends on
the batch alone: the same numbers come out of any number of threads.
"""

import torch

from charrnn.rnn.thread_team import ThreadTeam

GROUP = 8  # streams


def groups_of(batch: int) -> list[slice]:
    """Return the groups of B streams."""
    return [slice(start, min(start + GROUP, batch)) for start in range(0, batch, GROUP)]


def torch_team(threads: int) -> ThreadTeam:
    """Return threads in which torch uses a single thread and flushes denormal numbers to zero."""
    return ThreadTeam(threads, _prepare)


def _prepare() -> None:
    torch.set_num_threads(1)  # both are settings of each thread
    torch.set_flush_denormal(True)
