"""The time of a run does not include breaks, and includes everything else."""

from types import SimpleNamespace

import pytest

from charrnn.training import run_clock
from charrnn.training.run_clock import RunClock


class FakeTime:
    """A clock that the test sets, and the processor time that the process has used."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = self.used = 100.0
        fake = SimpleNamespace(monotonic=lambda: self.now, process_time=lambda: self.used)
        monkeypatch.setattr(run_clock, "time", fake)
        monkeypatch.setattr(run_clock.os, "cpu_count", lambda: 2)
        monkeypatch.setattr(RunClock, "_watch", lambda clock: None)  # the test reads the clock instead

    def advance(self, seconds: float, *, used: float) -> None:
        self.now, self.used = self.now + seconds, self.used + used


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    return FakeTime(monkeypatch)


def test_a_stop_does_not_count(fake: FakeTime) -> None:
    with RunClock(5.0) as clock:
        fake.advance(0.1, used=0.2)
        assert clock.seconds == pytest.approx(5.1)
        fake.advance(10.0, used=0.2)
        assert clock.seconds == pytest.approx(5.1)
        fake.advance(0.1, used=0.2)
        assert clock.seconds == pytest.approx(5.2)


@pytest.mark.parametrize("used", [6.0, 3.0, 1.5], ids=["all cores", "one core", "half a core of a busy machine"])
def test_a_long_step_counts_even_if_the_thread_cannot_run(fake: FakeTime, used: float) -> None:
    with RunClock() as clock:
        fake.advance(3.0, used=used)
        assert clock.seconds == 3


def test_waiting_for_a_gpu_counts(fake: FakeTime) -> None:
    with RunClock() as clock:
        for _ in range(30):  # while the main thread waits, the other one continues to read
            fake.advance(0.1, used=0.0)
            clock._read()
        assert clock.seconds == pytest.approx(3)


def test_the_time_outside_the_block_does_not_count(fake: FakeTime) -> None:
    clock = RunClock(2.0)
    with clock:
        fake.advance(1.0, used=1.0)
    fake.advance(60.0, used=60.0)
    with clock:
        fake.advance(1.0, used=1.0)
    assert clock.seconds == 4


def test_another_thread_reads_the_clock_until_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_clock, "INTERVAL_SECONDS", 0.001)
    with RunClock() as clock:
        before = clock._now
        while clock._now == before:
            pass
    assert not clock._thread.is_alive()
