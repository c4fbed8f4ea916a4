"""Measures the time of a run, without breaks in which the process or the machine was stopped, for example by Ctrl-Z.

A thread reads the clock several times a second. A long time between two readings, in which the process used no
processor time, is a break. A long step is not a break: it uses processor time, and while the program waits for a GPU,
the thread continues to read the clock.
"""

import os
import threading
import time

INTERVAL_SECONDS = 0.1  # time between two readings of the clock
MIN_BREAK_SECONDS = 1.0  # a shorter time between two readings is not a break
MAX_BREAK_LOAD = 0.1  # maximum processor time of a break, as a share of its duration; systems may count inexactly


class RunClock:
    """Measures the time of a run within a ``with`` block.

    Args:
        seconds: Duration of the run before the block.
    """

    def __init__(self, seconds: float = 0.0) -> None:
        self._seconds = seconds
        self._running = False
        self._max_processor_seconds = INTERVAL_SECONDS * (os.cpu_count() or 1)  # between the last reading and a stop
        self._lock = threading.Lock()
        self._end = threading.Event()

    def __enter__(self) -> "RunClock":
        self._now, self._processor_seconds = time.monotonic(), time.process_time()
        self._running = True
        self._end.clear()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._seconds = self.seconds
        self._running = False
        self._end.set()
        self._thread.join()

    @property
    def seconds(self) -> float:
        """Duration of the run so far, without breaks."""
        with self._lock:
            if self._running:
                self._read()
            return self._seconds

    def _watch(self) -> None:
        while not self._end.wait(INTERVAL_SECONDS):
            with self._lock:
                self._read()

    def _read(self) -> None:
        """Read the clock, and add the time since the last reading, unless it was a break. Requires the lock."""
        now, processor_seconds = time.monotonic(), time.process_time()
        gap, used = now - self._now, processor_seconds - self._processor_seconds
        was_stopped = gap > MIN_BREAK_SECONDS and used < self._max_processor_seconds + MAX_BREAK_LOAD * gap
        self._seconds += 0.0 if was_stopped else gap
        self._now, self._processor_seconds = now, processor_seconds
