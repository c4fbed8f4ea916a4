"""``charrnn eval``: bits per character of a text under a model."""

import json
from typing import Annotated

import typer

from charrnn.cli import options
from charrnn.cli.console import Console, emit
from charrnn.config import SampleConfig, TrainConfig
from charrnn.errors import CorpusError, SettingError
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
    device: options.Device = None,
    threads: options.Threads = None,
    quiet: options.Quiet = False,
) -> None:
    """Measure how well a model predicts a text, in bits per character.

    The state is carried from the first character to the last. A text of n characters has n-1 predictions.
    """
    machine_config = TrainConfig(**options.given(device=device, threads=threads, precision="fp32"))
    unknowns = SampleConfig(**options.given(unknown=unknown)).unknown
    if reset is not None and reset < 1:
        raise SettingError("reset", f"cannot be {reset}", "give a whole number, 1 or more")

    from charrnn import checkpoint
    from charrnn.text import sources
    from charrnn.text.vocabulary import describe_all

    console = Console(quiet=quiet)
    loaded = checkpoint.load(checkpoint.find(model))
    source = sources.read(text)
    name, characters = ", ".join(text), source.text
    if unknowns == "skip":
        characters, dropped = loaded.vocabulary.split_unknown(characters)
        if dropped:
            console.line(f"charrnn: {name}: left out what the model never saw: {describe_all(dropped)}")
    if len(characters) < 2:
        raise CorpusError(name, "holds fewer than two characters that the model knows", "give a longer text")
    ids = loaded.vocabulary.encode(characters, name)

    from charrnn.evaluation.bits import carried_nats, reset_nats
    from charrnn.model.network import CharRNN
    from charrnn.training.machine import Machine

    network = CharRNN(loaded.model, len(loaded.vocabulary)).to(Machine(machine_config).device)
    network.load_tensors(loaded.tensors)
    nats = carried_nats(network, ids)
    result: dict[str, float] = {"characters": len(ids) - 1, "nats": nats, "bits_per_char": bits(nats)}
    if reset is not None:
        fresh = reset_nats(network, ids, reset)
        result |= {"reset": reset, "reset_nats": fresh, "reset_bits_per_char": bits(fresh)}
    if json_:
        emit(json.dumps(result) + "\n")
        return
    emit(f"{bits(nats):.4f} bits per character ({nats:.4f} nats), {len(ids) - 1:,} characters, state carried\n")
    if reset is not None:
        emit(f"{bits(fresh):.4f} bits per character ({fresh:.4f} nats), state fresh every {reset:,}\n")
