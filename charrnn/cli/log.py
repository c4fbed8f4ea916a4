"""``charrnn log``: how a run went, as a table and a learning curve."""

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
MAX_WIDTH, HEIGHT = 100, 16  # of the curve, in characters
AXES = 24  # characters that its axes and labels take

Line = Mapping[str, Any]
Curves = dict[str, tuple[list[int], list[float]]]  # steps and bits per character, by what they are of


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

    The evaluations are stored in NAME.jsonl beside the model, as one JSON object per line.
    """
    if out is not None and Path(out).suffix not in FORMATS:
        raise SettingError("out", f"cannot be {out}", f"give a file that ends in {' or '.join(FORMATS)}")
    if out is not None and find_spec("matplotlib") is None:
        reason = "a picture needs matplotlib, which is not installed"
        raise MissingPackageError("--out", reason, "run: pip install 'charrnn-cli[plot]'")
    from charrnn import checkpoint
    from charrnn.io import atomic_io
    from charrnn.training.checkpointing import log_path

    path = log_path(checkpoint.find(model))
    lines = _read(path)
    if out is not None:
        atomic_io.write_atomic(Path(out), _image(_curves(lines), path.stem, Path(out).suffix))
        write_stdout(f"{out}\n")
    elif json_:
        write_stdout("".join(json.dumps(line) + "\n" for line in lines))
    else:
        write_stdout(_table(lines) + (f"\n{_terminal_chart(_curves(lines))}" if len(lines) > 1 else ""))


def _read(path: Path) -> list[Line]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or "is not a log"
        raise FileError(str(path), reason.lower(), "a log is written by charrnn train, beside its model") from None
    lines = []
    for number, row in enumerate(text.splitlines(), start=1):
        try:
            line = json.loads(row)
            _row(line)
        except (ValueError, TypeError, KeyError, OverflowError):
            raise FileError(f"{path}:{number}", "is not a line of a log", "train again") from None
        lines.append(line)
    if not lines:
        raise FileError(str(path), "holds no evaluation yet", "wait for the first one")
    return lines


def _table(lines: Sequence[Line]) -> str:
    rows = [("step", "epoch", "train", "validation", "lr", "time", ""), *map(_row, lines)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    aligned = ("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "".join(line + "\n" for line in aligned)


def _row(line: Line) -> tuple[str, ...]:
    nats = line["validation_nats"]
    return (
        f"{line['step']:,}",
        f"{line['epoch']:.1f}",
        f"{nats_to_bits(line['train_nats']):.3f}",
        "-" if nats is None else f"{nats_to_bits(nats):.3f}",
        f"{line['learning_rate']:.2g}",
        format_duration(line["seconds"]),
        "best" if line["best"] and nats is not None else "",
    )


def _curves(lines: Sequence[Line]) -> Curves:
    curves: Curves = {}
    for name in ("train", "validation"):
        known = [line for line in lines if line[f"{name}_nats"] is not None]
        if known:
            curves[name] = [line["step"] for line in known], [nats_to_bits(line[f"{name}_nats"]) for line in known]
    return curves


def _terminal_chart(curves: Curves) -> str:
    """The curves in characters."""
    import plotille

    figure = plotille.Figure()
    figure.width = max(20, min(MAX_WIDTH, shutil.get_terminal_size().columns) - AXES)
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
    """The curves as a PNG or an SVG."""
    import matplotlib as mpl
    from matplotlib.figure import Figure  # without pyplot no display is looked for

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    for name, (steps, values) in curves.items():
        axes.plot(steps, values, label=name, marker="o" if name == "validation" else None, markersize=3)
    axes.set(xlabel="step", ylabel="bits per character")
    axes.set_title(title, parse_math=False)
    axes.grid(alpha=0.3)
    axes.legend()
    buffer = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "charrnn"}), warnings.catch_warnings():  # the same curve, the same bytes
        warnings.simplefilter("ignore")  # of a letter in the title that its font lacks
        figure.savefig(buffer, format=suffix[1:], dpi=150, metadata={"Date": None} if suffix == ".svg" else None)
    return buffer.getvalue()
