"""``charrnn info``: describe a model file."""

import json
import os
import platform
import shlex
from dataclasses import asdict
from typing import TYPE_CHECKING

from charrnn.cli import corpus_options, options
from charrnn.cli.console import Console, escape_control, write_stdout
from charrnn.errors import ModelFileError
from charrnn.units import nats_to_bits
from charrnn.version import __version__

if TYPE_CHECKING:
    from pathlib import Path

    from charrnn.checkpoint import Checkpoint, TrainingRecord

PACKAGES = ("torch", "numpy", "llvmlite", "safetensors", "typer")  # a bug report needs their versions


EXAMPLES = """
charrnn info                                         # the newest model
charrnn info book --json | python -m json.tool       # for programs
"""


def info(model: options.ModelOrNewest = None, json_: options.Json = False) -> None:
    """Show the network, vocabulary and training record of a model.

    Without any model, show the versions of charrnn and its packages, and the machine.
    """
    from charrnn import checkpoint
    from charrnn.config.schema import to_json

    try:
        path = checkpoint.find(model)
    except ModelFileError as error:
        if model is not None:
            raise
        Console().line(str(error))
        _show_environment(json_=json_)
        return
    loaded = checkpoint.load(path)
    size = path.stat().st_size
    if json_:
        facts = {
            "file": str(path),
            "bytes": size,
            "parameters": loaded.model_config.num_parameters(len(loaded.vocabulary)),
            "model": asdict(loaded.model_config),
            "vocabulary": None if loaded.read_config.unit == "byte" else _characters(loaded),
            "reading": asdict(loaded.read_config),
            "training": loaded.training and to_json(loaded.training),
            "environment": _environment(),
        }
        write_stdout(json.dumps(facts) + "\n")
        return
    for name, value in [*_rows(path, size, loaded), *_training_rows(loaded)]:
        write_stdout(f"{name:<12}{escape_control(value)}\n")


def _show_environment(*, json_: bool) -> None:
    environment = _environment()
    if json_:
        write_stdout(json.dumps({"environment": environment}) + "\n")
        return
    for name, value in environment.items():
        write_stdout(f"{name:<12}{escape_control(str(value or 'not installed'))}\n")


def _environment() -> dict[str, str | int | None]:
    """Return the versions and the machine for a bug report. The packages are not imported."""
    from charrnn.rnn.costs import processor_name

    return {
        "charrnn": __version__,
        "python": platform.python_version(),
        **{package: _version_of(package) for package in PACKAGES},
        "platform": platform.platform(),
        "processor": processor_name(),
        "cores": os.cpu_count(),
    }


def _version_of(package: str) -> str | None:
    """Return the version of an installed package, or None."""
    from importlib import metadata

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _rows(path: "Path", size: int, loaded: "Checkpoint") -> list[tuple[str, str]]:
    """Return the description of a model as pairs of a label and a value."""
    model, characters = loaded.model_config, _characters(loaded)
    inputs = f"embedding of {model.embedding}" if model.embedding else "one-hot input"
    noun = "bytes" if loaded.read_config.unit == "byte" else "characters"
    return [
        ("file", f"{path}, {size:,} bytes"),
        ("network", f"{model.layers} x {model.hidden} {model.cell.upper()}, {inputs}, dropout {model.dropout:g}"),
        ("parameters", f"{model.num_parameters(len(loaded.vocabulary)):,}"),
        ("vocabulary", f"{len(characters):,} {noun}" + ("" if noun == "bytes" else f": {characters}")),
    ]


def _training_rows(loaded: "Checkpoint") -> list[tuple[str, str]]:
    """Return the training record of a model as pairs of a label and a value."""
    if (record := loaded.training) is None:
        return [("training", "not recorded")]
    corpus, nats = record.corpus, record.validation_nats
    noun = "bytes" if loaded.read_config.unit == "byte" else "characters"
    documents = f" in {corpus.num_documents:,} documents" if corpus.num_documents else ""
    quality = "not measured" if nats is None else f"{nats_to_bits(nats):.4f} bits per character ({nats:.4f} nats)"
    settings = asdict(record.settings).items()
    return [
        ("corpus", f"{corpus.name}, {corpus.characters:,} {noun}{documents}, sha256 {corpus.sha256}"),
        ("validation", f"{quality}, {corpus.validation_characters:,} {noun} held out"),
        ("steps", f"{record.steps:,}, best model at {record.best_step:,}; {record.outcome or 'unfinished'}"),
        ("settings", ", ".join(f"{name} {value}" for name, value in settings if value is not None)),
        *([("from", record.from_.model)] if record.from_ else []),
        *(("changed", change) for change in record.changed),
        (_command_label(record), _command(loaded, record)),
        ("made by", f"charrnn {record.charrnn}, torch {record.torch}"),
    ]


def _characters(loaded: "Checkpoint") -> str:
    """Return the characters or bytes in the vocabulary, without special symbols."""
    from charrnn.data.vocabulary import BOUNDARY, UNKNOWN

    return loaded.vocabulary.symbols.replace(BOUNDARY, "").replace(UNKNOWN, "")


def _command_label(record: "TrainingRecord") -> str:
    """Return ``repeat`` if the command repeats the run bit for bit, and ``similar`` otherwise.

    A run cannot be repeated if it has a budget in minutes, was stopped, started from another model, or was resumed
    with other settings.
    """
    is_plain = record.outcome not in (None, "stopped") and not record.from_ and not record.changed
    return "repeat" if is_plain and record.settings.minutes is None else "similar"


def _command(loaded: "Checkpoint", record: "TrainingRecord") -> str:
    """Return the command that trains with all settings of this run."""
    settings = {**asdict(loaded.model_config), **asdict(record.settings)}
    chosen = [name for name in settings if settings[name] is not None and options.has_option(name)]
    words = [word for name in chosen for word in (options.flag(name), str(settings[name]))]
    words += corpus_options.cli_args(loaded.read_config)
    source = f"CORPUS --from {_quote(record.from_.model)} " if record.from_ else "CORPUS "
    return "charrnn train " + source + " ".join(map(_quote, words))


def _quote(word: str) -> str:
    """Return a word quoted for a shell, without control characters."""
    return shlex.quote(word) if word.isprintable() else "$'" + escape_control(word).replace("'", "\\'") + "'"
