"""``charrnn log``: the log of a training run as a table and a learning curve."""

import io
import logging
import os
import shutil
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from charrnn.cli import options
from charrnn.cli.console import write_stdout
from charrnn.errors import CharrnnError, MissingPackageError, SettingError, describe_value, shortage
from charrnn.units import format_duration, nats_to_bits

if TYPE_CHECKING:
    from charrnn.training.run_log import LogEntry

FORMATS = (".png", ".svg")
MAX_WIDTH, HEIGHT = 100, 16  # size of the chart in characters
AXES_WIDTH = 24  # width of the axes and labels in characters

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
    from charrnn.training import run_log
    from charrnn.training.checkpointing import log_path

    path = log_path(checkpoint.find(model))
    entries = run_log.read(path)
    if out is not None:
        atomic_io.write_atomic(Path(out), _image(_curves(entries), path.stem, Path(out).suffix))
        write_stdout(f"{out}\n")
    elif json_:
        write_stdout(run_log.to_bytes(entries))
    else:
        write_stdout(_table(entries) + (f"\n{_terminal_chart(_curves(entries))}" if len(entries) > 1 else ""))


def _table(entries: Sequence["LogEntry"]) -> str:
    rows = [("step", "epoch", "train", "validation", "lr", "time", ""), *map(_row, entries)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "".join(line + "\n" for line in lines)


def _row(entry: "LogEntry") -> tuple[str, ...]:
    nats = entry.validation_nats
    return (
        f"{entry.step:,}",
        f"{entry.epoch:.1f}",
        f"{nats_to_bits(entry.train_nats):.3f}",
        "-" if nats is None else f"{nats_to_bits(nats):.3f}",
        f"{entry.learning_rate:.2g}",
        format_duration(entry.seconds),
        "best" if entry.best and nats is not None else "",
    )


def _curves(entries: Sequence["LogEntry"]) -> Curves:
    curves: Curves = {}
    for name in ("train", "validation"):
        nats_at = {entry.step: getattr(entry, f"{name}_nats") for entry in entries}
        points = [(step, nats_to_bits(nats)) for step, nats in nats_at.items() if nats is not None]
        if points:
            curves[name] = [step for step, _ in points], [bits for _, bits in points]
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
    """Return the curves as a PNG or SVG file.

    Raises:
        CharrnnError: If matplotlib cannot draw, for example because of a broken configuration file.
    """
    logging.getLogger("matplotlib").setLevel(logging.CRITICAL)  # hides warnings about its configuration
    os.environ["MPLBACKEND"] = "agg"  # the user's backend may be invalid or need a display
    try:
        return _draw(curves, title, suffix)
    except (ImportError, LookupError, OSError, RuntimeError, ValueError) as error:
        if shortage(error):
            raise
        reason = f"cannot draw the picture ({describe_value(error)})"
        raise CharrnnError("matplotlib", reason, "check its configuration file and environment variables") from None


def _draw(curves: Curves, title: str, suffix: str) -> bytes:
    """Draw the curves with matplotlib; see `_image`."""
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
    with mpl.rc_context({"svg.hashsalt": "charrnn"}):  # reproducible files
        figure.savefig(buffer, format=suffix[1:], dpi=150, metadata={"Date": None} if suffix == ".svg" else None)
    return buffer.getvalue()
