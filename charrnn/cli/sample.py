"""``charrnn sample``: generate text and write it to stdout."""

import math
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from charrnn.cli import options
from charrnn.cli.command import command
from charrnn.cli.console import Console, colorize, is_stdout, print_error, supports_color, write_stdout
from charrnn.config import SampleConfig
from charrnn.config.checks import Integer
from charrnn.config.settings import Option, override, setting
from charrnn.errors import CorpusError, SettingError

if TYPE_CHECKING:
    from charrnn.generation.batch import SampledCharacter


EXAMPLES = """
charrnn sample --temp 0.8                            # 1,000 characters from the newest model
charrnn sample book --prompt "It was" --echo -n 200  # continue a prompt
charrnn sample names --count 20 --lines 1            # twenty lines
charrnn sample book --length 0 | head -n 5           # endless, until the reader stops
"""


@dataclass(frozen=True, kw_only=True)
class SampleOptions:
    """Options of ``charrnn sample``."""

    model: options.ModelOrNewest = None
    prompt: Annotated[
        str,
        typer.Option("-p", "--prompt", metavar="TEXT", help="Text to continue; - reads it from stdin."),
    ] = ""
    config: SampleConfig
    length: int | None = override(SampleConfig)
    echo: Annotated[
        bool, typer.Option("--echo", help="Write the prompt before its continuation.", rich_help_panel="Prompt")
    ] = False
    count: int | None = setting(
        None, Integer(1), Option("Write N samples, each followed by a newline.", "N", group="Several samples")
    )
    prompts: Annotated[
        str | None,
        typer.Option(
            "--prompts",
            metavar="FILE",
            help="Continue every line of a file, or of stdin (-).",
            rich_help_panel="Several samples",
        ),
    ] = None
    separator: Annotated[
        str | None,
        typer.Option(
            "--separator",
            metavar="STRING",
            help="Write this string after every sample, instead of a newline.",
            rich_help_panel="Several samples",
        ),
    ] = None
    null: Annotated[
        bool,
        typer.Option(
            "-0", "--null", help="Write a NUL after every sample, for xargs -0.", rich_help_panel="Several samples"
        ),
    ] = False
    show: Annotated[
        str | None,
        typer.Option(
            "--show", metavar="surprisal", help="Colour every character by its surprisal.", rich_help_panel="Output"
        ),
    ] = None
    save_state: Annotated[
        str | None,
        typer.Option(
            "--save-state", metavar="FILE", help="Save the state after the prompt.", rich_help_panel="Prompt"
        ),
    ] = None
    load_state: Annotated[
        str | None,
        typer.Option("--load-state", metavar="FILE", help="Start from a saved state.", rich_help_panel="Prompt"),
    ] = None
    json_: options.Json = False
    quiet: options.Quiet = False

    @property
    def many(self) -> bool:
        """Whether ``--count`` or ``--prompts`` asks for several samples."""
        return self.count is not None or self.prompts is not None

    def checked_config(self) -> SampleConfig:
        """Check the options and return the settings of the samples. A default length is set later.

        Raises:
            SettingError: If options exclude each other, or an option needs another one.
        """
        has_prompts, has_separator, config = self.prompts is not None, self.separator is not None, self.config
        for field, other, both in (
            ("prompts", "--prompt", has_prompts and self.prompt),
            ("save_state", "--prompts", has_prompts and self.save_state is not None),
            ("separator", "-0", self.null and has_separator),
            ("separator", "--json", self.json_ and has_separator),
            ("null", "--json", self.json_ and self.null),
            ("echo", "--json", self.json_ and self.echo),
            ("show", "--json", self.json_ and self.show is not None),
        ):
            if both:
                raise SettingError(field, f"cannot be combined with {other}", "give one of them")
        if (has_separator or self.null) and not self.many:
            field = "separator" if has_separator else "null"
            raise SettingError(field, "given for a single sample", "add --count or --prompts, or leave it out")
        if config.logprobs is not None and not self.json_:
            raise SettingError("logprobs", "given without --json", "add --json")
        if config.keep_stop and not config.stop_strings:
            raise SettingError("keep_stop", "given without --stop", "add --stop")
        if self.show not in (None, "surprisal"):
            raise SettingError("show", f"invalid value {self.show}", "give surprisal")
        if config.length == 0 and (self.many or self.json_):
            reason = "0 cannot be combined with --count, --prompts or --json"
            raise SettingError("length", reason, "give 1 or more")
        if has_prompts and not config.lines and not (has_separator or self.null or self.json_):
            config = replace(config, lines=1)  # one line of output per line of input
        return replace(config, logprobs=0) if self.show is not None else config


@command
def sample(args: SampleOptions) -> None:
    """Write new text in the style of a model.

    The text goes to stdout, character by character. Filters apply in this order: --repeat-penalty, --allow and
    --forbid, --temp, --top-k, --top-p, --min-p.
    """
    config = args.checked_config()

    from charrnn import checkpoint  # imports NumPy, 70 ms; only after the options are checked
    from charrnn.cli import prompts as prompt_reading
    from charrnn.cli.colors import surprise_colors
    from charrnn.cli.json_output import sample_record
    from charrnn.generation import prompt_state as prompt_states
    from charrnn.generation.generate import (
        BATCH_WIDTH,
        Request,
        RequestList,
        Requests,
        generate,
        generate_batch,
    )
    from charrnn.rnn.backend import DecoderSelector

    console = Console(quiet=args.quiet)
    path = checkpoint.find(args.model)
    if args.model is None:
        console.line(f"charrnn: sampling {path}", style="dim")
    loaded = checkpoint.load(path)
    if args.save_state is not None:
        prompt_states.check_can_save(Path(args.save_state))
        if is_stdout(Path(args.save_state)):
            reason = f"{args.save_state} is the file that stdout is redirected to"
            raise SettingError("save_state", reason, "give another file")
    if args.length is None:
        config = replace(config, length=loaded.default_length)
    prompt_reading.warn_unreachable_stops(config, loaded, console)
    prompt = prompt_reading.resolve_prompt(args.prompt, config, loaded, console)
    num_samples = math.inf if args.prompts is not None else args.count or 1
    num_characters = len(prompt) + (config.length or math.inf) * num_samples

    def on_compile() -> None:
        console.line("charrnn: compiling for this processor; this takes a few seconds, only once", style="dim")

    streams = int(min(num_samples, BATCH_WIDTH))
    network = DecoderSelector(loaded, on_compile).choose(config.precision, num_characters, streams)
    prompt_state = (
        prompt_states.empty_prompt_state(network, loaded.vocabulary)
        if args.load_state is None
        else prompt_states.load(Path(args.load_state), loaded, network)
    )
    prompt_state = prompt_reading.read_prompt(network, prompt_state, loaded, prompt, console)
    if args.save_state is not None:
        prompt_states.save(Path(args.save_state), loaded, prompt_state)
    use_color = args.show is not None and _can_color(console)

    def colored(text: str, choices: Iterable["SampledCharacter"]) -> str:
        return colorize(surprise_colors(choices), sys.stdout) if use_color else text

    end = "\0" if args.null else (loaded.read_config.separator or "\n") if args.separator is None else args.separator
    if not args.many and not args.json_:
        last = prompt if args.echo else ""
        write_stdout(last)
        size = 0
        for last, choices in generate(network, loaded.vocabulary, config, prompt_state=prompt_state):
            write_stdout(colored(last, choices))
            size += len(last)
        if loaded.vocabulary.boundary_id is not None and size != config.length:  # a document ended before the limit
            write_stdout(last := end)
        console.end_line(last)
        return
    count = args.count or 1
    if args.prompts is None:
        requests: Requests = RequestList(Request(number) for number in range(count))
    else:
        skip = config.unknown == "skip"
        requests = prompt_reading.PromptLines(
            args.prompts, loaded.vocabulary, skip=skip, count=count, console=console
        )
    num_failed = 0
    for generated in generate_batch(network, loaded.vocabulary, config, requests, prompt_state):
        if generated.error is not None and generated.number % count == 0:  # once per prompt
            print_error(str(generated.error))
            num_failed += 1
        if args.json_:
            write_stdout(sample_record(generated, prompt, alternatives=args.config.logprobs is not None))
        else:
            echo = prompt + generated.prompt if args.echo else ""
            write_stdout(echo + colored(generated.text, generated.choices) + end)
    if num_failed:
        name = "stdin" if args.prompts == "-" else str(args.prompts)
        prompts = "1 prompt" if num_failed == 1 else f"{num_failed:,} prompts"
        raise CorpusError(name, f"{prompts} could not be continued", "see the errors above")


def _can_color(console: Console) -> bool:
    """Return whether stdout shows colours. Print a legend if it does, and a note if it does not."""
    if not supports_color(sys.stdout):
        console.line("charrnn: --show: stdout is not a terminal with colours, so the text is plain")
        return False
    from charrnn.cli.colors import legend

    console.parts(legend())
    return True
