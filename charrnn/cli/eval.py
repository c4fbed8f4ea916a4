"""``charrnn eval``: bits per character of a text under a model."""

import json
from dataclasses import asdict
from typing import Annotated

import typer

from charrnn.cli import options, reading
from charrnn.cli.console import Console, emit
from charrnn.config import ReadConfig, SampleConfig
from charrnn.errors import SettingError
from charrnn.units import bits


def evaluate(
    model: options.Model,
    text: Annotated[
        list[str], typer.Argument(metavar="TEXT", help="Files, directories, or - for stdin.", show_default=False)
    ],
    reset: Annotated[
        int | None,
        typer.Option("--reset", metavar="N", help="Measure also with a fresh state every N characters."),
    ] = None,
    unknown: options.Unknown = None,
    json_: options.Json = False,
    glob: reading.Glob = None,
    encoding: reading.Encoding = None,
    device: options.Device = None,
    threads: options.Threads = None,
    quiet: options.Quiet = False,
) -> None:
    """Measure how well a model predicts a text, in bits per character.

    The state is carried from the first character to the last. A text of n characters has n-1 predictions.
    The text is read as the one that the model was trained on: as bytes or characters, as documents or not.
    """
    unknowns = SampleConfig(**options.given(unknown=unknown)).unknown
    if reset is not None and reset < 1:
        raise SettingError("reset", f"cannot be {reset}", "give a whole number, 1 or more")

    from charrnn.cli import measuring
    from charrnn.text.vocabulary import describe_all

    console = Console(quiet=quiet)
    _, loaded = measuring.load(model)
    vocabulary, label = loaded.vocabulary, ", ".join(text)
    dropped: set[str] = set()

    def sift(symbols: str) -> str:
        if unknowns == "error" or vocabulary.unit == "byte":  # of which none is unknown
            return symbols
        kept, alien = vocabulary.split_alien(symbols)
        dropped.update(alien)
        return kept

    config = ReadConfig(**{**asdict(loaded.reading), "encoding": encoding})
    corpus = reading.read(text, reading.files(text, glob), config, console, sift=sift)
    if dropped:
        console.line(f"charrnn: {label}: left out what the model never saw: {describe_all(''.join(sorted(dropped)))}")
    if folded := [symbol for symbol in corpus.counts if symbol not in vocabulary]:
        share = sum(corpus.counts[symbol] for symbol in folded) / corpus.characters
        if vocabulary.unknown is not None:
            console.line(
                f"charrnn: {label}: {share:.2%} are characters too rare for the model to know, counted as one"
            )
    ids = corpus.with_vocabulary(vocabulary).text()

    from charrnn.evaluation.bits import carried_nats, reset_nats

    reader = measuring.reader(loaded, len(ids), device, threads)
    nats = carried_nats(reader, ids)
    result: dict[str, float] = {"characters": len(ids) - 1, "nats": nats, "bits_per_char": bits(nats)}
    if reset is not None:
        fresh = reset_nats(reader, ids, reset)
        result |= {"reset": reset, "reset_nats": fresh, "reset_bits_per_char": bits(fresh)}
    if json_:
        emit(json.dumps(result) + "\n")
        return
    emit(f"{bits(nats):.4f} bits per character ({nats:.4f} nats), {len(ids) - 1:,} characters, state carried\n")
    if reset is not None:
        emit(f"{bits(fresh):.4f} bits per character ({fresh:.4f} nats), state fresh every {reset:,}\n")
