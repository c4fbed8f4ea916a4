"""The time of a run, without the breaks in which its process was stopped, as by Ctrl-Z or with its machine.

A thread looks at the clock several times a second. If it could not do so for a while, and the process used no
processor time meanwhile, the process was stopped. A long step does not look like that: the thread continues while
the step runs on a processor, and while the program waits for a GPU.
"""

import os
import threading
import time

BEAT_SECONDS = 0.1  # time between two looks at the clock
MIN_BREAK_SECONDS = 1.0  # a shorter gap between two looks is no break
MAX_BREAK_LOAD = 0.1  # largest processor time in a break, as a share of it; systems do not always count exactly


class RunClock:
    """Measures the time of a run within a ``with`` block.

    Args:
        seconds: Duration of the run before the block.
    """

    def __init__(self, seconds: float = 0.0) -> None:
        self._seconds = seconds
        self._running = False
        self._max_processor_seconds = BEAT_SECONDS * (os.cpu_count() or 1)  # used between a look and a stop
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
                self._look()
            return self._seconds

    def _watch(self) -> None:
        while not self._end.wait(BEAT_SECONDS):
            with self._lock:
                self._look()

    def _look(self) -> None:
        now, processor_seconds = time.monotonic(), time.process_time()
        gap, used = now - self._now, processor_seconds - self._processor_seconds
        was_stopped = gap > MIN_BREAK_SECONDS and used < self._max_processor_seconds + MAX_BREAK_LOAD * gap
        self._seconds += 0.0 if was_stopped else gap
        self._now, self._processor_seconds = now, processor_seconds
