"""``charrnn sample``: new text on stdout, and nothing else there."""

import math
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from charrnn.cli import options
from charrnn.cli.console import Console, colourful, complain, emit, in_colours
from charrnn.config import SampleConfig
from charrnn.errors import CorpusError, SettingError

if TYPE_CHECKING:
    from charrnn.generation.batch import Choice


def sample(
    model: options.ModelOrNewest = None,
    temp: Annotated[
        str | None,
        typer.Option(
            "-t",
            "--temp",
            metavar="X",
            help="Below 1 plays safe, above 1 takes risks, 0 is greedy; 0.6:1.1 goes "
            "from one to the other.  [default: 1]",
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
    count: Annotated[
        int | None, typer.Option("--count", metavar="N", help="Write so many samples, each ended by a newline.")
    ] = None,
    prompts: Annotated[
        str | None,
        typer.Option(
            "--prompts", metavar="FILE", help="Continue each line of a file, or of stdin with -, by one line."
        ),
    ] = None,
    separator: Annotated[
        str | None, typer.Option("--separator", metavar="STRING", help="End each sample with this instead.")
    ] = None,
    null: Annotated[bool, typer.Option("-0", "--null", help="End each with a NUL, for xargs -0.")] = False,
    lines: Annotated[
        int | None, typer.Option("--lines", metavar="N", help="End a sample after so many lines.")
    ] = None,
    stop: Annotated[
        list[str] | None,
        typer.Option("--stop", metavar="STRING", help="End before this would be written; may be repeated."),
    ] = None,
    keep_stop: Annotated[bool, typer.Option("--keep-stop", help="End after it instead.")] = False,
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
    repeat_penalty: Annotated[
        float | None,
        typer.Option(
            "--repeat-penalty", metavar="X", help="Raise the probability of recent characters to this power."
        ),
    ] = None,
    repeat_window: Annotated[
        int | None, typer.Option("--repeat-window", metavar="N", help="How many are recent.  [default: 64]")
    ] = None,
    allow: Annotated[
        str | None, typer.Option("--allow", metavar="CHARS", help=r"Write only these, such as 'a-z \n'.")
    ] = None,
    forbid: Annotated[str | None, typer.Option("--forbid", metavar="CHARS", help="Never write these.")] = None,
    logprobs: Annotated[
        int | None,
        typer.Option("--logprobs", metavar="K", help="With --json: each character's, and of the K likeliest."),
    ] = None,
    show: Annotated[
        str | None,
        typer.Option("--show", metavar="surprise", help="Colour each character by how unexpected it was."),
    ] = None,
    save_state: Annotated[
        str | None, typer.Option("--save-state", metavar="FILE", help="Keep what was read: the state after --prompt.")
    ] = None,
    load_state: Annotated[
        str | None, typer.Option("--load-state", metavar="FILE", help="Go on from there instead of from nothing.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", metavar="N", help="The same seed, the same text.  [default: a fresh one]")
    ] = None,
    unknown: options.Unknown = None,
    precision: Annotated[
        str | None, typer.Option("--precision", metavar="int8|fp32", help="Of the weights.  [default: int8]")
    ] = None,
    utf8: Annotated[bool, typer.Option("--utf8", help="Of a model of bytes: whole characters only.")] = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Write new text in the style of a model.

    What is asked for acts in this order: --repeat-penalty, --allow and --forbid, --temp, --top-k, --top-p, --min-p.
    """
    lined, separated = prompts is not None, separator is not None
    many = count is not None or lined
    for field, other, both in (
        ("prompts", "--prompt", lined and prompt),
        ("save_state", "--prompts", lined and save_state is not None),
        ("separator", "-0", null and separated),
        ("separator", "--json", as_json and separated),
        ("null", "--json", as_json and null),
        ("echo", "--json", as_json and echo),
        ("show", "--json", as_json and show is not None),
    ):
        if both:
            raise SettingError(field, f"given together with {other}", "give one of them")
    if (separated or null) and not many:
        raise SettingError(
            "separator" if separated else "null", "ends each of many samples", "add --count or --prompts"
        )
    if logprobs is not None and not as_json:
        raise SettingError("logprobs", "go into JSON", "add --json")
    if keep_stop and not stop:
        raise SettingError("keep_stop", "has nothing to keep", "add --stop")
    if show not in (None, "surprise"):
        raise SettingError("show", f"cannot be {show}", "give surprise")
    if lined and lines is None and not (separated or null or as_json):
        lines = 1  # a line for each line
    config = SampleConfig(
        **options.given(
            temperature=None if temp is None else _temperature(temp), length=length, stop=tuple(stop or ()),
            keep_stop=keep_stop, lines=lines, top_k=top_k, top_p=top_p, min_p=min_p, repeat_penalty=repeat_penalty,
            repeat_window=repeat_window, allow=allow, forbid=forbid, seed=seed, unknown=unknown, precision=precision,
            logprobs=0 if show else logprobs, utf8=utf8 or None,
        )
    )  # fmt: skip
    if count is not None and not 1 <= count < 2**63:
        raise SettingError("count", f"cannot be {count}", "give a whole number, 1 or more, below 2**63")
    if config.length == 0 and (many or as_json):
        raise SettingError("length", "cannot be 0 where a sample is to be finished", "give a whole number, 1 or more")
    from charrnn import checkpoint  # NumPy's 70 ms, once the options are known to be good
    from charrnn.cli import prompts as prompts_of
    from charrnn.cli.colors import coloured
    from charrnn.cli.json_output import record
    from charrnn.generation import prompt_state as states
    from charrnn.generation.generate import Listed, Request, Requests, generate_batch, write
    from charrnn.rnn.backend import Decoders

    console = Console(quiet=quiet)
    path = checkpoint.find(model)
    if model is None:
        console.line(f"charrnn: sampling {path}", style="dim")
    loaded = checkpoint.load(path)
    if save_state is not None:
        states.check_free(Path(save_state))
    documents = loaded.vocabulary.boundary is not None
    if documents and length is None:
        config = replace(config, length=loaded.usual_length)
    prompts_of.tell_of_stops(config, loaded, console)
    prompt = prompts_of.text_of(prompt, config, loaded, console)
    characters = len(prompt) + (config.length or math.inf) * (math.inf if lined else count or 1)

    def compiling() -> None:
        console.line("charrnn: compiling for this processor, which takes some seconds once", style="dim")

    network = Decoders(loaded, compiling).choose(config.precision, characters)
    primed = (
        states.unprimed(network, loaded.vocabulary)
        if load_state is None
        else states.load(Path(load_state), loaded, network)
    )
    primed = prompts_of.read(network, primed, loaded, prompt, console)
    if save_state is not None:
        states.save(Path(save_state), loaded, primed)
    in_colour = show is not None and _can_show(console)

    def shown(text: str, choices: Iterable["Choice"]) -> str:
        return in_colours(coloured(choices), sys.stdout) if in_colour else text

    end = "\0" if null else (loaded.reading.separator or "\n") if separator is None else separator
    if not many and not as_json:
        last = prompt if echo else ""
        emit(last)
        size = 0
        for last, choices in write(network, loaded.vocabulary, config, primed=primed):
            emit(shown(last, choices))
            size += len(last)
        if documents and size != config.length:  # which is a cut
            emit(last := end)
        console.clear_of(last)
        return
    if prompts is None:
        requests: Requests = Listed(Request(number) for number in range(count or 1))
    else:
        skip = config.unknown == "skip"
        requests = prompts_of.PromptLines(prompts, loaded.vocabulary, skip=skip, count=count or 1, console=console)
    failed = 0
    for written in generate_batch(network, loaded.vocabulary, config, requests, primed):
        if written.error is not None and written.number % (count or 1) == 0:  # each prompt but once
            complain(str(written.error))
            failed += 1
        if as_json:
            emit(record(written, prompt, alternatives=logprobs is not None))
        else:
            before = prompt + written.prompt if echo else ""
            emit(before + shown(written.text, written.choices) + end)
    if failed:
        name = "stdin" if prompts == "-" else str(prompts)
        raise CorpusError(name, f"{failed:,} could not be continued", "the others were")


def _can_show(console: Console) -> bool:
    """Whether stdout shows colours; tells what they mean, or else why there are none."""
    if not colourful(sys.stdout):
        console.line("charrnn: --show: stdout is no terminal that shows colours, so the text comes plain")
        return False
    from charrnn.cli.colors import legend

    console.parts(legend())
    return True


def _temperature(given: str) -> float | tuple[float, float]:
    """A number, or two of them with a colon between.

    Raises:
        SettingError: neither.
    """
    try:
        numbers = [float(part) for part in given.split(":")]
    except ValueError:
        numbers = []
    if len(numbers) not in (1, 2):
        raise SettingError("temperature", f"cannot be {given}", "give a number such as 0.8, or two such as 0.6:1.1")
    return numbers[0] if len(numbers) == 1 else (numbers[0], numbers[1])
