"""The log of a run: one line of JSON per evaluation, in ``NAME.jsonl``."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from charrnn.config.checks import FINITE, Integer, Nullable, Range
from charrnn.config.schema import from_json, to_json
from charrnn.config.settings import checked
from charrnn.errors import FileError
from charrnn.io.regular_file import open_regular, read_regular
from charrnn.io.strict_json import parse_json

MAX_SECONDS = 1e12  # maximum duration of a run in a file
_MAX_BYTES = 64 << 20  # maximum size of a log, in which a line has about 200 bytes
_BEGINNING = b'{"step": '  # of every line
_ADVICE = "train the model again"


@dataclass(frozen=True, kw_only=True)
class LogEntry:
    """One evaluation of a run."""

    step: int = checked(Integer(1))  # optimizer steps taken
    epoch: float = checked(Range(0, 1e18, "a number of epochs"))
    fraction: float = checked(Range(0, 1, "a number from 0 to 1"))  # share of the budget that is spent
    train_nats: float = checked(FINITE)  # mean training loss since the previous evaluation
    validation_nats: float | None = checked(Nullable(FINITE))  # None without a validation text, or if not finite
    best: bool  # whether it is the best so far
    learning_rate: float = checked(Range(0, 10, "a number from 0 to 10"))
    seconds: float = checked(Range(0, MAX_SECONDS, "a number of seconds"))  # duration of the run so far


def check_order(entries: Sequence[LogEntry]) -> None:
    """Raise ValueError unless the steps of the entries increase."""
    for before, after in pairwise(entries):
        if after.step <= before.step:
            raise ValueError(f"step {after.step} follows step {before.step}")


def to_bytes(entries: Iterable[LogEntry]) -> bytes:
    """Return the contents of the log file."""
    return "".join(json.dumps(to_json(entry)) + "\n" for entry in entries).encode()


def looks_like(path: Path) -> bool:
    """Return whether a regular file begins like a log. The rest of it may be damaged.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it is not a regular file.
    """
    with open_regular(path) as file:
        return file.read(len(_BEGINNING)) == _BEGINNING


def read(path: Path) -> list[LogEntry]:
    """Read and check a log file.

    Raises:
        FileError: If the file is missing, not a regular file, too large, not a log, or without entries.
    """
    keep = "keep it beside the model, or train again to write one"
    try:
        data = read_regular(path, _MAX_BYTES)
    except (OSError, ValueError) as error:
        raise FileError(str(path), (getattr(error, "strerror", None) or str(error)).lower(), keep) from None
    entries: list[LogEntry] = []
    for number, line in enumerate(data.splitlines(), start=1):
        try:
            entries.append(from_json(LogEntry, parse_json(line)))
            check_order(entries[-2:])
        except ValueError as error:
            raise FileError(f"{path}:{number}", f"is not an entry of a log: {error}", _ADVICE) from None
    if not entries:
        raise FileError(str(path), "contains no evaluation yet", "wait for the first one")
    return entries
