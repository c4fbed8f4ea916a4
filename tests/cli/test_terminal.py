"""Output on a terminal, read from a pseudo-terminal."""

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
    r"done.* bits per character .*|stopped at step \d+, everything saved; .*|"
    r"resume: charrnn train --resume -o corpus corpus\.txt|next: charrnn sample corpus --temp 0\.8|"
    r"checkpoints/corpus\.safetensors|"
)

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # pexpect forks, and torch has threads


@dataclass(frozen=True)
class Session:
    """The result of a finished run in a terminal."""

    directory: Path
    code: int
    raw: str  # all output

    @property
    def screen(self) -> list[str]:
        """The lines on the screen at the end."""
        return screen_lines(self.raw)


def screen_lines(raw: str) -> list[str]:
    """Return the lines on the screen of a terminal of WIDTH columns, which wraps longer lines."""
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


def terminal(directory: Path, *arguments: str, program: Sequence[str] = PROGRAM, **env: str) -> "pexpect.spawn[str]":
    """Start ``charrnn ARGUMENTS`` in a pseudo-terminal."""
    # A child would inherit an ignored SIGINT.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return pexpect.spawn(
            program[0], [*program[1:], *arguments], cwd=directory, dimensions=(24, WIDTH), timeout=100,
            encoding="utf-8", env=environment(**{"TERM": "xterm-256color", **env}),
        )  # fmt: skip
    finally:
        signal.signal(signal.SIGINT, before)


def finish(process: "pexpect.spawn[str]", directory: Path, so_far: str = "") -> Session:
    process.expect(pexpect.EOF)
    process.close()
    return Session(directory, process.exitstatus, so_far + process.before)


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory, warm: list[str]) -> Session:
    """A complete run of ``charrnn train corpus.txt``."""
    directory = tmp_path_factory.mktemp("session")
    (directory / "corpus.txt").write_text(CORPUS)
    return finish(terminal(directory, "train", "corpus.txt", *QUICK, program=warm), directory)


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> Session:
    """A run of ``charrnn train corpus.txt``, without `warm`, that Ctrl-C interrupts during the progress bar."""
    directory = tmp_path_factory.mktemp("interrupted")
    (directory / "corpus.txt").write_text(CORPUS)
    process = terminal(directory, "train", "corpus.txt", *ENDLESS)
    process.expect(r"\d bits/char, ")  # in the progress bar, which appears with the first step
    so_far = process.before + process.after
    process.send("\x03")
    return finish(process, directory, so_far)


def test_training_shows_a_progress_bar_with_loss_and_speed(session: Session) -> None:
    assert re.search(r"\r +\d+% [█▏▎▍▌▋▊▉ ]*\d\.\d{3} bits/char, \S+ char/s, \d+ s left", session.raw)


def test_autotuning_shows_a_temporary_message(session: Session) -> None:
    before = session.raw[: session.raw.index("plan: ")]
    assert "measuring which settings train fastest here" in before
    assert not any("measuring" in line for line in session.screen)  # the message is erased


def test_training_shows_the_corpus_and_the_plan(session: Session) -> None:
    assert session.screen[0] == "corpus: 3,440 characters, 32 distinct -> checkpoints/corpus.safetensors"
    assert session.screen[1].startswith("plan: 1 x 16 LSTM, ")


def test_training_shows_each_evaluation(session: Session) -> None:
    assert [int(line.split()[1]) for line in session.screen if line.startswith("step ")] == [4, 8, 12, 16, 20]


def test_training_ends_with_a_summary_the_next_command_and_the_path(session: Session) -> None:
    summary = next(index for index, line in enumerate(session.screen) if line.startswith("done"))

    assert "bits per character" in "".join(session.screen[summary : summary + 2])
    assert session.screen[-3:] == ["next: charrnn sample corpus --temp 0.8", "checkpoints/corpus.safetensors", ""]
    assert session.code == 0


def test_the_next_command_works_unchanged(session: Session, charrnn: Charrnn) -> None:
    line = next(line for line in session.screen if line.startswith("next: charrnn "))
    arguments = shlex.split(line.removeprefix("next: charrnn "))

    result = charrnn(*arguments, cwd=session.directory)

    assert (result.returncode, len(result.stdout)) == (0, 1000)


def test_the_progress_bar_is_erased(session: Session) -> None:
    assert [line for line in unwrapped(session.screen) if not LINES.fullmatch(line)] == []


def test_ctrl_c_ends_training_and_saves_the_model(interrupted: Session) -> None:
    model = checkpoint.load(interrupted.directory / "checkpoints" / "corpus.safetensors")

    assert interrupted.code == 130
    assert model.training.steps >= 1


def test_ctrl_c_ends_training_with_a_summary_and_the_next_command(interrupted: Session) -> None:
    assert re.match(r"stopped at step \d+, everything saved; not evaluated yet, after ", interrupted.screen[-5])
    assert interrupted.screen[-4:] == [
        "resume: charrnn train --resume -o corpus corpus.txt", "next: charrnn sample corpus --temp 0.8",
        "checkpoints/corpus.safetensors", "",
    ]  # fmt: skip


def test_closing_the_terminal_saves_the_run(tmp_path: Path, warm: list[str]) -> None:
    (tmp_path / "corpus.txt").write_text(CORPUS)
    process = terminal(tmp_path, "train", "corpus.txt", *ENDLESS, program=warm)
    process.expect(r"\d bits/char, ")
    os.close(process.child_fd)
    _, status = os.waitpid(process.pid, 0)
    assert os.waitstatus_to_exitcode(status) in (1, 129)  # 1 if the path of the model cannot be written
    state = Checkpointer(tmp_path / "checkpoints" / "corpus.safetensors", 60).find()
    assert state is not None
    assert state[0].current.progress.step >= 1


def test_ctrl_c_erases_the_progress_bar(interrupted: Session) -> None:
    assert [line for line in unwrapped(interrupted.screen) if not LINES.fullmatch(line)] == []


def test_a_dumb_terminal_gets_plain_lines(tmp_path: Path, warm: list[str]) -> None:
    (tmp_path / "corpus.txt").write_text(CORPUS)
    session = finish(terminal(tmp_path, "train", "corpus.txt", *QUICK, program=warm, TERM="dumb"), tmp_path)

    assert "\r" not in session.raw.replace("\r\n", "\n")
    assert "\x1b" not in session.raw
    assert [line for line in session.raw.splitlines() if not LINES.fullmatch(line)] == []


def test_quiet_training_shows_only_the_path(tmp_path: Path, warm: list[str]) -> None:
    (tmp_path / "corpus.txt").write_text(CORPUS)
    session = finish(terminal(tmp_path, "train", "corpus.txt", "-q", *QUICK, program=warm), tmp_path)

    assert (session.code, session.raw) == (0, "checkpoints/corpus.safetensors\r\n")


Note = Callable[..., str]


@pytest.fixture
def models_directory(tmp_path: Path, tiny: Checkpoint) -> Path:
    """A directory with one model, which ``charrnn sample`` finds without a name."""
    checkpoint.save(tmp_path / "checkpoints" / "tiny.safetensors", tiny)
    return tmp_path


@pytest.fixture
def note(models_directory: Path, warm: list[str]) -> Note:
    """A function that returns stderr of ``charrnn sample`` on a terminal, with the sample in a file."""

    def note(*arguments: str, **env: str) -> str:
        script = 'exec "$@" > sample'
        process = pexpect.spawn(
            "bash", ["-c", script, "bash", *warm, "sample", "-n", "5", *arguments], cwd=models_directory, timeout=100,
            dimensions=(24, WIDTH), encoding="utf-8", env=environment(**{"TERM": "xterm-256color", **env}),
        )  # fmt: skip
        return finish(process, models_directory).raw

    return note


def test_a_terminal_gets_colour(note: Note) -> None:
    assert re.fullmatch(r"\x1b\[2m.*tiny\.safetensors\x1b\[0m\r\n", note())


@pytest.mark.parametrize("env", [{"NO_COLOR": "1"}, {"TERM": "dumb"}, {"NO_COLOR": "1", "FORCE_COLOR": "1"}])
def test_no_color_and_dumb_terminals_get_no_colour(note: Note, env: dict[str, str]) -> None:
    assert note(**env) == "charrnn: sampling checkpoints/tiny.safetensors\r\n"


def test_quiet_sampling_writes_nothing_to_stderr(note: Note) -> None:
    assert note("-q") == ""


def test_a_sample_on_a_terminal_ends_with_a_newline_for_the_shell(
    models_directory: Path, charrnn: Charrnn, warm: list[str]
) -> None:
    command = ("sample", "tiny", "-n", "300", "--seed", "1", "--echo", "-p", "fox")
    shown = finish(terminal(models_directory, *command, program=warm), models_directory)

    piped = charrnn(*command)
    assert piped.returncode == 0
    assert not piped.stdout.endswith(b"\n")
    assert shown.raw.replace("\r\n", "\n") == piped.stdout.decode() + "\n"


def test_ctrl_c_ends_an_endless_sample(models_directory: Path) -> None:
    process = terminal(models_directory, "sample", "tiny", "-n", "0")
    process.expect(".")
    process.send("\x03")

    session = finish(process, models_directory)

    assert session.code == 130
    assert "Traceback" not in session.raw


def unwrapped(screen: list[str]) -> list[str]:
    """Return the lines before the terminal wrapped them."""
    lines = [""]
    for line in screen:
        lines[-1] += line
        if len(line) < WIDTH:
            lines.append("")
    return lines
