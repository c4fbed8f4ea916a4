"""Handles signals during training.

The first signal stops the trainer after the current step, so that the run can be saved. A signal before training has
started, or a second Ctrl-C, ends the program at once. This is safe because every file is written atomically.
"""

import os
import signal
import time
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from charrnn.training.trainer import Trainer

_STOP_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")  # those that the system has
_SAVE_SIGNAL = "SIGUSR1"
DOUBLE_SIGNAL_SECONDS = 0.3  # two signals within this time count as one


class Signals:
    """Context manager that handles signals during a training run.

    Attributes:
        on_exit: Callback before the program ends at once; `finally` blocks are not executed then.
        received: The number of the signal that stops the run, or None.
        save_requested: Whether SIGUSR1 has asked for a save. The caller sets it to False after saving.
    """

    def __init__(self) -> None:
        self.on_exit: Callable[[], object] = lambda: None
        self.received: int | None = None
        self.save_requested = False
        self._trainer: Trainer | None = None
        self._received_at = 0.0
        self._previous_handlers: dict[int, Any] = {}

    def __enter__(self) -> "Signals":
        for name in (*_STOP_SIGNALS, _SAVE_SIGNAL):
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) != signal.SIG_IGN:  # as after `&` or `nohup`
                self._previous_handlers[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._previous_handlers.items():
            signal.signal(number, handler)

    def attach(self, trainer: "Trainer") -> None:
        """Let the next signal stop this trainer, instead of ending the program at once."""
        self._trainer = trainer

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number == getattr(signal, _SAVE_SIGNAL, None):
            self.save_requested = True
        elif self._trainer is None or (number == signal.SIGINT and self._is_repeated()):
            self.on_exit()
            os._exit(128 + number)
        elif self.received is None:
            self.received, self._received_at = number, time.monotonic()
            self._trainer.stop = True

    def _is_repeated(self) -> bool:
        """Return whether a signal is a second request to stop.

        Launchers and service managers may send two signals at once, which count as one request.
        """
        return self.received is not None and time.monotonic() - self._received_at > DOUBLE_SIGNAL_SECONDS
