"""Threads that compute side by side: in order, undisturbed, and also after a fork."""

import os
import threading

import pytest
import torch

from charrnn.rnn.stream_groups import GROUP_SIZE, stream_groups, torch_worker_pool
from charrnn.rnn.worker_pool import WorkerPool


@pytest.mark.parametrize("batch", [1, GROUP_SIZE - 1, GROUP_SIZE, GROUP_SIZE + 1, 5 * GROUP_SIZE])
def test_groups_are_as_large_as_they_can_be_and_hold_every_stream_once(batch: int) -> None:
    groups = stream_groups(batch)
    assert [stream for group in groups for stream in range(batch)[group]] == list(range(batch))
    assert all(len(range(batch)[group]) == GROUP_SIZE for group in groups[:-1])


def test_results_come_in_the_order_of_the_work_from_threads_that_run_at_once() -> None:
    both = threading.Barrier(2, timeout=30)
    assert WorkerPool(2).run([lambda place=place: (both.wait(), place)[1] for place in range(4)]) == [0, 1, 2, 3]


@pytest.mark.parametrize("threads", [1, 2])
def test_torch_computes_undivided_whoever_asks(threads: int) -> None:
    before = torch.get_num_threads()
    tiny = torch.full((4,), 1e-38)  # times a thousandth it is denormal

    def work() -> tuple[int, float]:
        return torch.get_num_threads(), float((tiny * 1e-3).sum())

    assert torch_worker_pool(threads).run([work, work]) == [(1, 0.0)] * 2
    assert torch.get_num_threads() == before


def test_an_error_reaches_the_caller() -> None:
    with pytest.raises(ZeroDivisionError):
        WorkerPool(2).run([lambda: 1, lambda: 1 // 0])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_team_that_was_used_before_a_fork_works_after_it() -> None:
    team = WorkerPool(2)
    assert team.run([lambda: 1, lambda: 2]) == [1, 2]
    child = os.fork()
    if child == 0:
        os._exit(sum(team.run([lambda: 3, lambda: 4])))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
