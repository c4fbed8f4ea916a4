"""``charrnn log``: the log of a training run as a table and a learning curve."""

import io
import json
import shutil
import warnings
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from charrnn.cli import options
from charrnn.cli.console import write_stdout
from charrnn.errors import FileError, MissingPackageError, SettingError
from charrnn.units import format_duration, nats_to_bits

FORMATS = (".png", ".svg")
MAX_CHARACTERS = 10_000_000  # of a log; an evaluation has about 250
MAX_WIDTH, HEIGHT = 100, 16  # size of the chart in characters
AXES_WIDTH = 24  # width of the axes and labels in characters

Entry = Mapping[str, Any]
Curves = dict[str, tuple[list[int], list[float]]]  # "train" or "validation": steps, bits per character


EXAMPLES = """
charrnn log                                          # the newest model
charrnn log book -o curve.svg                        # the learning curve as a picture
"""


def log(
    model: options.ModelOrNewest = None,
    out: Annotated[
        str | None,
        typer.Option("-o", "--out", metavar="FILE", help="Save the learning curve as .png or .svg."),
    ] = None,
    json_: options.Json = False,
) -> None:
    """Show the evaluations and the learning curve of a training run.

    The evaluations are stored beside the model in NAME.jsonl, one JSON object per line.
    """
    if out is not None and Path(out).suffix not in FORMATS:
        raise SettingError("out", f"invalid value {out}", f"give a file that ends in {' or '.join(FORMATS)}")
    if out is not None and find_spec("matplotlib") is None:
        reason = "a picture needs matplotlib, which is not installed"
        raise MissingPackageError("--out", reason, "run: pip install 'charrnn-cli[plot]'")
    from charrnn import checkpoint
    from charrnn.io import atomic_io
    from charrnn.training.checkpointing import log_path

    path = log_path(checkpoint.find(model))
    entries = _read(path)
    if out is not None:
        atomic_io.write_atomic(Path(out), _image(_curves(entries), path.stem, Path(out).suffix))
        write_stdout(f"{out}\n")
    elif json_:
        write_stdout("".join(json.dumps(entry) + "\n" for entry in entries))
    else:
        write_stdout(_table(entries) + (f"\n{_terminal_chart(_curves(entries))}" if len(entries) > 1 else ""))


def _read(path: Path) -> list[Entry]:
    """Return the entries of a log file.

    Raises:
        FileError: If the file is missing, not a log, or without entries.
    """
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(MAX_CHARACTERS + 1)
    except (OSError, UnicodeDecodeError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or "is not a log"
        raise FileError(str(path), reason.lower(), "keep it beside the model, or train again to write one") from None
    if len(text) > MAX_CHARACTERS:
        raise FileError(str(path), "is too long for a log", "train the model again")
    entries = []
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            entry = json.loads(line)
            _row(entry)
        except (ValueError, TypeError, KeyError, OverflowError):
            raise FileError(f"{path}:{number}", "is not an entry of a log", "train the model again") from None
        entries.append(entry)
    if not entries:
        raise FileError(str(path), "contains no evaluation yet", "wait for the first one")
    return entries


def _table(entries: Sequence[Entry]) -> str:
    rows = [("step", "epoch", "train", "validation", "lr", "time", ""), *map(_row, entries)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "".join(line + "\n" for line in lines)


def _row(entry: Entry) -> tuple[str, ...]:
    nats = entry["validation_nats"]
    return (
        f"{entry['step']:,}",
        f"{entry['epoch']:.1f}",
        f"{nats_to_bits(entry['train_nats']):.3f}",
        "-" if nats is None else f"{nats_to_bits(nats):.3f}",
        f"{entry['learning_rate']:.2g}",
        format_duration(entry["seconds"]),
        "best" if entry["best"] and nats is not None else "",
    )


def _curves(entries: Sequence[Entry]) -> Curves:
    curves: Curves = {}
    for name in ("train", "validation"):
        points = [(entry["step"], entry[f"{name}_nats"]) for entry in entries if entry[f"{name}_nats"] is not None]
        if points:
            curves[name] = [step for step, _ in points], [nats_to_bits(nats) for _, nats in points]
    return curves


def _terminal_chart(curves: Curves) -> str:
    """Return the curves as a text chart."""
    import plotille

    figure = plotille.Figure()
    figure.width = max(20, min(MAX_WIDTH, shutil.get_terminal_size().columns) - AXES_WIDTH)
    figure.height = HEIGHT
    figure.with_colors = False
    figure.x_label, figure.y_label = "step", "bits/char"
    figure.set_x_limits(min_=0, max_=max(steps[-1] for steps, _ in curves.values()))
    figure.x_ticks_fkt = lambda low, high: f"{low:,.0f}"
    figure.y_ticks_fkt = lambda low, high: f"{low:.2f}"
    for name, (steps, values) in curves.items():
        figure.plot(steps, values, label=name, marker="o" if name == "validation" else None)
    return str(figure.show(legend=True)) + "\n"


def _image(curves: Curves, title: str, suffix: str) -> bytes:
    """Return the curves as a PNG or SVG file."""
    import matplotlib as mpl
    from matplotlib.figure import Figure  # pyplot would look for a display

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    for name, (steps, values) in curves.items():
        axes.plot(steps, values, label=name, marker="o" if name == "validation" else None, markersize=3)
    axes.set(xlabel="step", ylabel="bits per character")
    axes.set_title(title, parse_math=False)
    axes.grid(alpha=0.3)
    axes.legend()
    buffer = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "charrnn"}), warnings.catch_warnings():  # reproducible files
        warnings.simplefilter("ignore")  # about characters of the title that the font lacks
        figure.savefig(buffer, format=suffix[1:], dpi=150, metadata={"Date": None} if suffix == ".svg" else None)
    return buffer.getvalue()
