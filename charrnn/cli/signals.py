"""Signals while a run can be lost: they are noted, and looked at where it can be saved.

Before there is anything to lose, and at a second Ctrl-C, the program leaves at once: every file is written whole, so
that does no harm.
"""

import os
import signal
import time
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from charrnn.training.trainer import Trainer

_STOP_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")  # as far as the system knows them
_SAVE_SIGNAL = "SIGUSR1"
DOUBLE_SIGNAL_SECONDS = 0.3  # seconds in which two signals are one wish


class Signals:
    """Listens while it is entered.

    Attributes:
        on_exit: called before leaving at once, which no `finally` survives.
        received: the signal that ends the run, once there was one.
        save_requested: whether somebody asked for a save in between; set it back once it is done.
    """

    def __init__(self) -> None:
        self.on_exit: Callable[[], object] = lambda: None
        self.received: int | None = None
        self.save_requested = False
        self._trainer: Trainer | None = None
        self._since = 0.0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Signals":
        for name in (*_STOP_SIGNALS, _SAVE_SIGNAL):
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) != signal.SIG_IGN:  # as `&` and `nohup` may set
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def attach(self, trainer: "Trainer") -> None:
        """From here on the first signal stop_strings this trainer, instead of leaving at once."""
        self._trainer = trainer

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number == getattr(signal, _SAVE_SIGNAL, None):
            self.save_requested = True
        elif self._trainer is None or (number == signal.SIGINT and self._is_repeated()):
            self.on_exit()
            os._exit(128 + number)
        elif self.received is None:
            self.received, self._since = number, time.monotonic()
            self._trainer.stop = True

    def _is_repeated(self) -> bool:
        """Whether a person asked again: launchers and service managers send two signals at once."""
        return self.received is not None and time.monotonic() - self._since > DOUBLE_SIGNAL_SECONDS
