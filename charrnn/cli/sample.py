"""``charrnn sample``: new text on stdout, and nothing else there."""

import json
import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from charrnn.cli import options
from charrnn.cli.console import Console, complain, emit
from charrnn.config import SampleConfig
from charrnn.errors import CorpusError, SettingError
from charrnn.units import bits

if TYPE_CHECKING:
    from charrnn.sampling.writer import Sample


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
    seed: Annotated[
        int | None, typer.Option("--seed", metavar="N", help="The same seed, the same text.  [default: a fresh one]")
    ] = None,
    unknown: options.Unknown = None,
    precision: Annotated[
        str | None, typer.Option("--precision", metavar="int8|fp32", help="Of the weights.  [default: int8]")
    ] = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Write new text in the style of a model.

    What is asked for acts in this order: --repeat-penalty, --allow and --forbid, --temp, --top-k, --top-p, --min-p.
    """
    many = count is not None or prompts is not None
    if prompts is not None and prompt:
        raise SettingError("prompts", "given together with --prompt", "give one of them")
    if separator is not None and null:
        raise SettingError("separator", "given together with -0", "give one of them")
    if not many and not as_json:
        for name, value in (("separator", separator), ("null", null or None)):
            if value is not None:
                raise SettingError(name, "ends each of many samples", "add --count or --prompts")
    if prompts is not None and lines is None and separator is None and not null and not as_json:
        lines = 1  # a line for each line
    config = SampleConfig(
        **options.given(
            temperature=None if temp is None else _temperature(temp), length=length, stop=tuple(stop or ()),
            keep_stop=keep_stop, lines=lines, top_k=top_k, top_p=top_p, min_p=min_p, repeat_penalty=repeat_penalty,
            repeat_window=repeat_window, allow=allow, forbid=forbid, seed=seed, unknown=unknown,
            precision=precision,
        )
    )  # fmt: skip
    if count is not None and count < 1:
        raise SettingError("count", f"cannot be {count}", "give a whole number, 1 or more")
    if count is not None and count >= 2**63:
        raise SettingError("count", f"cannot be {count}", "give a whole number below 2**63")
    if config.length == 0 and (many or as_json):
        raise SettingError("length", "cannot be 0 where a sample is to be finished", "give a whole number, 1 or more")
    from charrnn import checkpoint  # NumPy's 70 ms, once the options are known to be good
    from charrnn.sampling.engine import Engines
    from charrnn.sampling.writer import Listed, Request, Requests, write, write_all
    from charrnn.text import sources
    from charrnn.text.vocabulary import describe_all

    console = Console(quiet=quiet)
    path = checkpoint.find(model)
    if model is None:
        console.line(f"charrnn: sampling {path}", style="dim")
    loaded = checkpoint.load(path)
    vocabulary = loaded.vocabulary
    for string in config.stops:
        if alien := vocabulary.split_unknown(string)[1]:
            console.line(
                f"charrnn: --stop: the model never writes {describe_all(alien)}, so that it cannot end there"
            )
    if prompt == sources.STDIN:
        prompt = sources.decode(sources.read_bytes(sources.STDIN), sources.STDIN)
    if config.unknown == "skip":
        prompt, dropped = vocabulary.split_unknown(prompt)
        if dropped:
            console.line(f"charrnn: the prompt: left out what the model never saw: {describe_all(dropped)}")
    characters = len(prompt) + (config.length or math.inf) * (math.inf if prompts is not None else count or 1)
    network = Engines(loaded.model, loaded.tensors).network(config.precision, characters)
    if not many and not as_json:
        _stream(write(network, vocabulary, config, prompt), prompt if echo else "", console)
        return
    if prompts is None:
        vocabulary.encode(prompt, "the prompt")  # one error, not one for each sample
        requests: Requests = Listed(Request(number, prompt) for number in range(count or 1))
    else:
        from charrnn.cli.prompts import PromptLines

        skip = config.unknown == "skip"
        requests = PromptLines(prompts, vocabulary, skip=skip, count=count or 1, console=console)
    end = "\0" if null else "\n" if separator is None else separator
    failed = 0
    for written in write_all(network, vocabulary, config, requests):
        if written.error is not None and written.number % (count or 1) == 0:  # each prompt but once
            complain(str(written.error))
            failed += 1
        emit(_json(written) if as_json else (written.prompt if echo else "") + written.text + end)
    if failed:
        name = "stdin" if prompts == sources.STDIN else str(prompts)
        raise CorpusError(name, f"{failed:,} could not be continued", "the others were")


def _stream(pieces: Iterable[str], first: str, console: Console) -> None:
    """Writes a single sample as it is made."""
    piece = first
    emit(piece)
    for piece in pieces:
        emit(piece)
    console.clear_of(piece)


def _json(written: "Sample") -> str:
    """A sample as a line of JSON."""
    facts: dict[str, Any] = {"number": written.number, "prompt": written.prompt}
    if written.error is not None:
        facts["error"] = str(written.error)
    else:
        size = len(written.text)
        per_character = round(bits(written.nats / size), 6) if size else None
        facts |= {
            "text": written.text, "stop": written.ended, "characters": size, "bits_per_char": per_character,
            "seed": written.seed,
        }  # fmt: skip
    return json.dumps(facts, ensure_ascii=False) + "\n"


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
