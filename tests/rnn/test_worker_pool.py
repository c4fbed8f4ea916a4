"""Worker threads: the order of results, the settings of torch, errors and forks."""

import os
import threading

import pytest
import torch

from charrnn.rnn.stream_groups import GROUP_SIZE, stream_groups, torch_worker_pool
from charrnn.rnn.worker_pool import WorkerPool


@pytest.mark.parametrize("batch", [1, GROUP_SIZE - 1, GROUP_SIZE, GROUP_SIZE + 1, 5 * GROUP_SIZE])
def test_all_groups_but_the_last_are_full_and_each_stream_is_in_one(batch: int) -> None:
    groups = stream_groups(batch)
    assert [stream for group in groups for stream in range(batch)[group]] == list(range(batch))
    assert all(len(range(batch)[group]) == GROUP_SIZE for group in groups[:-1])


def test_results_keep_the_order_of_tasks_that_run_in_parallel() -> None:
    barrier = threading.Barrier(2, timeout=30)
    assert WorkerPool(2).run([lambda index=index: (barrier.wait(), index)[1] for index in range(4)]) == [0, 1, 2, 3]


@pytest.mark.parametrize("threads", [1, 2])
def test_torch_uses_one_thread_per_task_and_flushes_denormals(threads: int) -> None:
    before = torch.get_num_threads()
    small = torch.full((4,), 1e-38)  # multiplied by 1e-3 it is denormal

    def work() -> tuple[int, float]:
        return torch.get_num_threads(), float((small * 1e-3).sum())

    assert torch_worker_pool(threads).run([work, work]) == [(1, 0.0)] * 2
    assert torch.get_num_threads() == before


def test_an_error_reaches_the_caller() -> None:
    with pytest.raises(ZeroDivisionError):
        WorkerPool(2).run([lambda: 1, lambda: 1 // 0])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_used_pool_still_works_after_a_fork() -> None:
    pool = WorkerPool(2)
    assert pool.run([lambda: 1, lambda: 2]) == [1, 2]
    child = os.fork()
    if child == 0:
        os._exit(sum(pool.run([lambda: 3, lambda: 4])))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
