"""``charrnn sample`` with `--save-state`, `--load-state`, `--logprobs` and `--show`."""

import json
import os
import re
from pathlib import Path

import pytest

from charrnn.cli.colors import surprise_colors
from charrnn.cli.console import colorize
from charrnn.generation.batch import SampledCharacter
from tests.cli.test_terminal import terminal
from tests.conftest import Charrnn, one_line

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # pexpect forks, and torch has threads
LONG = "The quick brown fox jumps over the lazy dog.\n" * 20


def test_a_text_is_read_once_and_continued_several_times(charrnn: Charrnn, tiny_path: Path) -> None:
    options = ("-n", 30, "--seed", 1)
    first = charrnn("sample", tiny_path, "-p", "-", "--save-state", "state", *options, input=LONG.encode())
    assert first.returncode == 0, first.stderr

    loaded = ("sample", tiny_path, "--load-state", "state")
    assert charrnn(*loaded, *options).stdout == first.stdout
    several = charrnn(*loaded, *options, "--count", 3, "--separator", "|").stdout.split(b"|")
    assert several[0] == first.stdout
    assert len({*several[:3]}) == 3
    lines = charrnn(*loaded, *options, "--prompts", "-", input=b"fox\ndog\n")
    direct = charrnn("sample", tiny_path, *options, "--lines", 1, "-p", LONG + "fox")
    assert lines.stdout.splitlines()[0] == direct.stdout.splitlines()[0]
    continued = charrnn(*loaded, "-p", "fox", "--save-state", "further", *options)
    assert charrnn("sample", tiny_path, "--load-state", "further", *options).stdout == continued.stdout
    assert continued.stdout == charrnn("sample", tiny_path, "-p", LONG + "fox", *options).stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--load-state", "none"), "none: cannot be read (no such file or directory); check the path"),
        (("--load-state", "tiny.safetensors"), "tiny.safetensors: is a charrnn model, but not a saved state; "),
        (("--save-state", "tiny.safetensors"), "tiny.safetensors: already exists and is not a prompt state; "),
        (("--save-state", "."), ".: "),
        (("--save-state", "no/such"), ""),
    ],
)
def test_an_unusable_state_file_is_a_one_line_error(
    charrnn: Charrnn, tiny_path: Path, options: tuple[str, ...], message: str
) -> None:
    before = tiny_path.read_bytes()
    result = charrnn("sample", tiny_path, "-n", 9, *options)
    if message:
        assert one_line(result).startswith("charrnn: " + message)
        assert (result.returncode, result.stdout) == (1, b"")
    else:
        assert result.returncode == 0  # the directory is created
    assert tiny_path.read_bytes() == before


def test_the_logprobs_add_up_to_the_bits(charrnn: Charrnn, tiny_path: Path) -> None:
    result = charrnn("sample", tiny_path, "--json", "--logprobs", 3, "-n", 50, "--count", 2, "--temp", 0.7)
    for line in result.stdout.decode().splitlines():
        record = json.loads(line)
        logprobs = record["logprobs"]
        assert "".join(entry["character"] for entry in logprobs) == record["text"]
        bits = -sum(entry["logprob"] for entry in logprobs) / 0.6931471805599453
        assert bits / record["characters"] == pytest.approx(record["bits_per_char"], abs=1e-5)
        for entry in logprobs:
            best = list(entry["best"].values())
            assert len(best) == 3
            assert best == sorted(best, reverse=True)
            assert entry["best"].get(entry["character"], entry["logprob"]) == entry["logprob"] <= best[0]
    without = charrnn("sample", tiny_path, "--json", "-n", 5)
    assert "logprobs" not in json.loads(without.stdout)


def test_surprisal_is_shown_in_colours_on_a_terminal(
    charrnn: Charrnn, tiny_path: Path, tmp_path: Path, warm: list[str]
) -> None:
    options = ("sample", "tiny.safetensors", "-n", "70", "--seed", "1", "-p", "fox", "--echo")
    child = terminal(tmp_path, *options, "--show", "surprisal", program=warm)
    raw = child.read()
    child.wait()

    shown = re.sub("\x1b\\[[0-9;]*m", "", raw).replace("\r\n", "\n")
    plain = charrnn(*options).stdout.decode()
    legend, _, text = shown.partition("\n")
    assert legend == "surprisal in bits:  below 0.5  0.5 to 2  2 to 4  4 to 6  6 or more"
    assert text.rstrip("\n") == plain.rstrip("\n")
    assert "\x1b[" in raw.partition("\n")[2]
    assert raw.partition("\n")[2].startswith("fox")


def test_tabs_and_other_control_characters_are_not_changed() -> None:
    parts = [("a\tb", "red"), ("\r\f\n", ""), ("[bold]c", "bold")]
    with open(os.devnull) as file:
        assert re.sub("\x1b\\[[0-9;]*m", "", colorize(parts, file)) == "a\tb\r\f\n[bold]c"


def test_the_bytes_of_a_character_have_the_colour_of_the_first_byte() -> None:
    low, high = 0.1, 9.0
    first, second = "é".encode().decode("ascii", "surrogateescape")
    parts = surprise_colors(
        [
            SampledCharacter("a", low),
            SampledCharacter(first, high),
            SampledCharacter(second, low),
            SampledCharacter("b", low),
        ]
    )
    assert [text for text, _ in parts] == ["a", first + second, "b"]
    (_, before), (_, within), (_, after) = parts
    assert before == after != within


def test_several_samples_are_shown_in_order(
    charrnn: Charrnn, tiny_path: Path, tmp_path: Path, warm: list[str]
) -> None:
    options = ("sample", "tiny.safetensors", "-n", "40", "--seed", "1", "--count", "3", "--forbid", r"\n")
    child = terminal(tmp_path, *options, "--show", "surprisal", "-q", program=warm)
    raw = child.read()
    child.wait()
    shown = re.sub("\x1b\\[[0-9;]*m", "", raw).replace("\r\n", "\n")
    assert shown == charrnn(*options).stdout.decode()
    assert "\x1b[" in raw


def test_without_support_for_colours_the_text_is_plain(
    charrnn: Charrnn, tiny_path: Path, tmp_path: Path, warm: list[str]
) -> None:
    options = ("sample", "tiny.safetensors", "-n", "70", "--seed", "1")
    piped = charrnn(*options, "--show", "surprisal")
    assert piped.stdout == charrnn(*options).stdout
    assert "stdout is not a terminal with colours" in one_line(piped)
    child = terminal(tmp_path, *options, "--show", "surprisal", program=warm, NO_COLOR="1")
    assert "\x1b" not in child.read()
    child.wait()


def test_a_long_prompt_has_a_progress_bar(tiny_path: Path, tmp_path: Path, warm: list[str]) -> None:
    (tmp_path / "long.txt").write_text(LONG * 30)
    child = terminal(
        tmp_path, "sample", "tiny.safetensors", "-n", "5", "-p", (LONG * 30)[:30_000], "--seed", "1", program=warm
    )
    raw = child.read()
    child.wait()
    assert "100%" in raw or "characters" in raw
    assert "%" not in raw.rpartition("\r")[2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--logprobs 3", "--logprobs: given without --json; add --json"),
        ("--json --logprobs -1", "--logprobs: invalid value -1; give an integer, 0 or more"),
        ("--json --show surprisal", "--show: cannot be combined with --json; give one of them"),
        ("--show colours", "--show: invalid value colours; give surprisal"),
        ("--json --echo", "--echo: cannot be combined with --json; give one of them"),
        ("--json -0", "--null: cannot be combined with --json; give one of them"),
        ("--keep-stop", "--keep-stop: given without --stop; add --stop"),
        ("--prompts - --save-state x", "--save-state: cannot be combined with --prompts; give one of them"),
    ],
)
def test_invalid_options_are_rejected(charrnn: Charrnn, options: str, message: str) -> None:
    result = charrnn("sample", "missing", *options.split())
    assert result.returncode == 2
    assert one_line(result) == f"charrnn: {message}\n"


def test_a_state_does_not_replace_the_file_of_stdout(charrnn: Charrnn, tiny_path: Path, tmp_path: Path) -> None:
    with open(tmp_path / "out", "wb") as out:
        result = charrnn("sample", tiny_path, "-n", "5", "--save-state", "out", stdout=out)
    assert result.returncode == 2
    assert "--save-state: out is the file that stdout is redirected to; give another file" in one_line(result)
