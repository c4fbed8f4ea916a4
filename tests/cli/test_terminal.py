"""What a person at a terminal sees, in a pseudo-terminal."""

import os
import re
import shlex
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pexpect
import pytest

from charrnn import checkpoint
from charrnn.checkpoint import Checkpoint
from charrnn.training.checkpointing import Checkpointer
from tests.cli.conftest import CORPUS, ENDLESS, PROGRAM, QUICK
from tests.conftest import Charrnn, environment

WIDTH = 100
LINES = re.compile(
    r"corpus: [\d,]+ characters, \d+ distinct -> checkpoints/corpus\.safetensors|plan: .*|"
    r"step +\d+  epoch +\d+\.\d  train \d\.\d{3}  validation \d\.\d{3} bits/char(  best)?|"
    r"done.* bits per character .*|stopped at step \d+; everything is saved; .*|"
    r"resume: charrnn train --resume -o corpus corpus\.txt|next: charrnn sample corpus --temp 0\.8|"
    r"checkpoints/corpus\.safetensors|"
)

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # pexpect forks, and torch has threads


@dataclass(frozen=True)
class Session:
    """A run in a terminal that is over."""

    folder: Path
    code: int
    raw: str  # every character that the terminal got

    @property
    def screen(self) -> list[str]:
        """What is on the screen at the end, of which the terminal wraps nothing."""
        return show(self.raw)


def show(raw: str) -> list[str]:
    """The lines that a terminal of WIDTH columns shows; a line that is too long for it goes on below."""
    lines, column = [""], 0
    for piece in re.findall(r"\x1b\[[0-9;]*m|.", raw, re.DOTALL):
        if piece == "\r":
            column = 0
        elif piece == "\n":
            lines.append("")
        elif len(piece) == 1:
            assert piece.isprintable(), repr(piece)
            if column == WIDTH:
                lines.append("")
                column = 0
            lines[-1] = lines[-1][:column].ljust(column) + piece + lines[-1][column + 1 :]
            column += 1
    return [line.rstrip() for line in lines]


def terminal(folder: Path, *arguments: str, program: Sequence[str] = PROGRAM, **env: str) -> "pexpect.spawn[str]":
    """A charrnn at work in a terminal."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # what is ignored here stays ignored there
    try:
        return pexpect.spawn(
            program[0], [*program[1:], *arguments], cwd=folder, dimensions=(24, WIDTH), timeout=100, encoding="utf-8",
            env=environment(**{"TERM": "xterm-256color", **env}),
        )  # fmt: skip
    finally:
        signal.signal(signal.SIGINT, before)


def finish(process: "pexpect.spawn[str]", folder: Path, so_far: str = "") -> Session:
    process.expect(pexpect.EOF)
    process.close()
    return Session(folder, process.exitstatus, so_far + process.before)


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory, warm: list[str]) -> Session:
    """``charrnn train corpus.txt`` to its end."""
    folder = tmp_path_factory.mktemp("session")
    (folder / "corpus.txt").write_text(CORPUS)
    return finish(terminal(folder, "train", "corpus.txt", *QUICK, program=warm), folder)


@pytest.fixture(scope="module")
def broken_off(tmp_path_factory: pytest.TempPathFactory) -> Session:
    """``charrnn train corpus.txt`` until a Ctrl-C, while the bar moves; a process that nothing stands in for."""
    folder = tmp_path_factory.mktemp("broken-off")
    (folder / "corpus.txt").write_text(CORPUS)
    process = terminal(folder, "train", "corpus.txt", *ENDLESS)
    process.expect(r"\d bits/char, ")  # the bar's, which appears with the first step
    so_far = process.before + process.after
    process.send("\x03")
    return finish(process, folder, so_far)


def test_a_training_shows_a_bar_with_its_loss_and_its_pace(session: Session) -> None:
    assert re.search(r"\r +\d+% [█▏▎▍▌▋▊▉ ]*\d\.\d{3} bits/char, \S+ char/s, \d\d:\d\d left", session.raw)


def test_the_seconds_before_the_plan_are_not_silent(session: Session) -> None:
    before = session.raw[: session.raw.index("plan: ")]
    assert "measuring which settings train fastest here" in before
    assert not any("measuring" in line for line in session.screen)  # and nothing of it stays


def test_a_training_shows_what_it_reads_and_what_it_plans(session: Session) -> None:
    assert session.screen[0] == "corpus: 3,440 characters, 32 distinct -> checkpoints/corpus.safetensors"
    assert session.screen[1].startswith("plan: 1 x 16 LSTM, ")


def test_a_training_shows_each_evaluation(session: Session) -> None:
    assert [int(line.split()[1]) for line in session.screen if line.startswith("step ")] == [4, 8, 12, 16, 20]


def test_a_training_ends_with_a_verdict_the_next_command_and_the_path(session: Session) -> None:
    verdict = next(index for index, line in enumerate(session.screen) if line.startswith("done"))

    assert "bits per character" in "".join(session.screen[verdict : verdict + 2])
    assert session.screen[-3:] == ["next: charrnn sample corpus --temp 0.8", "checkpoints/corpus.safetensors", ""]
    assert session.code == 0


def test_the_next_command_works_as_it_stands(session: Session, charrnn: Charrnn) -> None:
    line = next(line for line in session.screen if line.startswith("next: charrnn "))
    arguments = shlex.split(line.removeprefix("next: charrnn "))

    result = charrnn(*arguments, cwd=session.folder)

    assert (result.returncode, len(result.stdout)) == (0, 1000)


def test_the_bar_leaves_nothing_behind(session: Session) -> None:
    assert [line for line in unwrapped(session.screen) if not LINES.fullmatch(line)] == []


def test_ctrl_c_ends_a_training_with_the_model_saved(broken_off: Session) -> None:
    model = checkpoint.load(broken_off.folder / "checkpoints" / "corpus.safetensors")

    assert broken_off.code == 130
    assert model.training["steps"] >= 1


def test_ctrl_c_ends_a_training_with_a_verdict_and_the_next_command(broken_off: Session) -> None:
    assert re.match(r"stopped at step \d+; everything is saved; not evaluated yet, after ", broken_off.screen[-5])
    assert broken_off.screen[-4:] == [
        "resume: charrnn train --resume -o corpus corpus.txt", "next: charrnn sample corpus --temp 0.8",
        "checkpoints/corpus.safetensors", "",
    ]  # fmt: skip


def test_a_terminal_that_is_closed_loses_nothing(tmp_path: Path, warm: list[str]) -> None:
    (tmp_path / "corpus.txt").write_text(CORPUS)
    process = terminal(tmp_path, "train", "corpus.txt", *ENDLESS, program=warm)
    process.expect(r"\d bits/char, ")
    os.close(process.child_fd)
    _, status = os.waitpid(process.pid, 0)
    assert os.waitstatus_to_exitcode(status) in (1, 129)  # nobody can be told the model's path any more
    state = Checkpointer(tmp_path / "checkpoints" / "corpus.safetensors", 60).find()
    assert state is not None
    assert state[0].current.progress.step >= 1


def test_ctrl_c_leaves_nothing_of_the_bar(broken_off: Session) -> None:
    assert [line for line in unwrapped(broken_off.screen) if not LINES.fullmatch(line)] == []


def test_a_dumb_terminal_gets_plain_lines(tmp_path: Path, warm: list[str]) -> None:
    (tmp_path / "corpus.txt").write_text(CORPUS)
    dumb = finish(terminal(tmp_path, "train", "corpus.txt", *QUICK, program=warm, TERM="dumb"), tmp_path)

    assert "\r" not in dumb.raw.replace("\r\n", "\n")
    assert "\x1b" not in dumb.raw
    assert [line for line in dumb.raw.splitlines() if not LINES.fullmatch(line)] == []


def test_a_quiet_training_shows_its_path_alone(tmp_path: Path, warm: list[str]) -> None:
    (tmp_path / "corpus.txt").write_text(CORPUS)
    quiet = finish(terminal(tmp_path, "train", "corpus.txt", "-q", *QUICK, program=warm), tmp_path)

    assert (quiet.code, quiet.raw) == (0, "checkpoints/corpus.safetensors\r\n")


Note = Callable[..., str]


@pytest.fixture
def shelf(tmp_path: Path, tiny: Checkpoint) -> Path:
    """A folder with one model, of which ``charrnn sample`` tells the name."""
    checkpoint.save(tmp_path / "checkpoints" / "tiny.safetensors", tiny)
    return tmp_path


@pytest.fixture
def note(shelf: Path, warm: list[str]) -> Note:
    """Returns what ``charrnn sample`` says on a terminal besides the sample, which goes elsewhere."""

    def note(*arguments: str, **env: str) -> str:
        script = 'exec "$@" > sample'
        process = pexpect.spawn(
            "bash", ["-c", script, "bash", *warm, "sample", "-n", "5", *arguments], cwd=shelf, timeout=100,
            dimensions=(24, WIDTH), encoding="utf-8", env=environment(**{"TERM": "xterm-256color", **env}),
        )  # fmt: skip
        return finish(process, shelf).raw

    return note


def test_a_terminal_gets_colour(note: Note) -> None:
    assert re.fullmatch(r"\x1b\[2m.*tiny\.safetensors\x1b\[0m\r\n", note())


@pytest.mark.parametrize("env", [{"NO_COLOR": "1"}, {"TERM": "dumb"}, {"NO_COLOR": "1", "FORCE_COLOR": "1"}])
def test_no_color_and_dumb_terminals_get_none(note: Note, env: dict[str, str]) -> None:
    assert note(**env) == "charrnn: sampling checkpoints/tiny.safetensors\r\n"


def test_quiet_says_nothing(note: Note) -> None:
    assert note("-q") == ""


def test_a_sample_on_a_terminal_is_the_text_and_then_a_fresh_line_for_the_shell(
    shelf: Path, charrnn: Charrnn, warm: list[str]
) -> None:
    command = ("sample", "tiny", "-n", "300", "--seed", "1", "--echo", "-p", "fox")
    shown = finish(terminal(shelf, *command, program=warm), shelf)

    piped = charrnn(*command)
    assert piped.returncode == 0
    assert not piped.stdout.endswith(b"\n")
    assert shown.raw.replace("\r\n", "\n") == piped.stdout.decode() + "\n"


def test_ctrl_c_ends_an_endless_sample(shelf: Path) -> None:
    process = terminal(shelf, "sample", "tiny", "-n", "0")
    process.expect(".")
    process.send("\x03")

    ended = finish(process, shelf)

    assert ended.code == 130
    assert "Traceback" not in ended.raw


def unwrapped(screen: list[str]) -> list[str]:
    """Lines as they were before the terminal broke those that fill its width."""
    whole = [""]
    for line in screen:
        whole[-1] += line
        if len(line) < WIDTH:
            whole.append("")
    return whole
