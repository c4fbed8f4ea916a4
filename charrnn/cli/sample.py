"""``charrnn sample``: new text on stdout, and nothing else there."""

from typing import Annotated

import typer

from charrnn.cli import options
from charrnn.cli.console import Console, emit
from charrnn.config import SampleConfig


def sample(
    model: options.ModelOrNewest = None,
    temp: Annotated[
        float | None,
        typer.Option(
            "-t", "--temp", metavar="X", help="Below 1 plays safe, above 1 takes risks, 0 is greedy.  [default: 1]"
        ),
    ] = None,
    length: Annotated[
        int | None,
        typer.Option("-n", "--length", metavar="N", help="New characters; 0 never stops.  [default: 1000]"),
    ] = None,
    prompt: Annotated[
        str, typer.Option("-p", "--prompt", metavar="TEXT", help="Continue this; - reads it from stdin.")
    ] = "",
    echo: Annotated[bool, typer.Option("--echo", help="Write the prompt first.")] = False,
    stop: Annotated[
        str | None, typer.Option("--stop", metavar="STRING", help="End before this would be written.")
    ] = None,
    top_k: Annotated[
        int | None, typer.Option("--top-k", metavar="K", help="Choose among the K likeliest characters.")
    ] = None,
    top_p: Annotated[
        float | None,
        typer.Option("--top-p", metavar="P", help="Choose among the likeliest that reach this probability together."),
    ] = None,
    min_p: Annotated[
        float | None,
        typer.Option("--min-p", metavar="P", help="Leave out what is less likely than P times the likeliest."),
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", metavar="N", help="The same seed, the same text.  [default: a fresh one]")
    ] = None,
    unknown: options.Unknown = None,
    quiet: options.Quiet = False,
) -> None:
    """Write new text in the style of a model.

    Filters act in this order: temperature, top-k, top-p, min-p.
    """
    config = SampleConfig(
        **options.given(
            temperature=temp, length=length, stop=stop, top_k=top_k, top_p=top_p, min_p=min_p, seed=seed,
            unknown=unknown,
        )
    )  # fmt: skip
    from charrnn import checkpoint  # NumPy's 70 ms, once the options are known to be good
    from charrnn.sampling.stepper import Stepper
    from charrnn.sampling.writer import write
    from charrnn.text import sources
    from charrnn.text.vocabulary import describe_all

    console = Console(quiet=quiet)
    path = checkpoint.find(model)
    if model is None:
        console.line(f"charrnn: sampling {path}", style="dim")
    loaded = checkpoint.load(path)
    if prompt == sources.STDIN:
        prompt = sources.decode(sources.read_bytes(sources.STDIN), sources.STDIN)
    if config.unknown == "skip":
        prompt, dropped = loaded.vocabulary.split_unknown(prompt)
        if dropped:
            console.line(f"charrnn: the prompt: left out what the model never saw: {describe_all(dropped)}")
    pieces = write(Stepper(loaded.model, loaded.tensors), loaded.vocabulary, config, prompt)
    piece = prompt if echo else ""
    emit(piece)
    for piece in pieces:
        emit(piece)
    console.clear_of(piece)
