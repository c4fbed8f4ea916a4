"""Behaviour in a shell: streams, signals, exit codes, and which files are read and written."""

import json
import os
import re
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from charrnn import checkpoint
from tests.cli.conftest import CORPUS, ENDLESS, PROGRAM, QUICK, WIDE, Run, files, running
from tests.conftest import Charrnn, environment, make_checkpoint, one_line, within

COLOURFUL = {
    "FORCE_COLOR": "1", "CLICOLOR_FORCE": "1", "PY_COLORS": "1", "GITHUB_ACTIONS": "true", "TTY_COMPATIBLE": "1",
    "TERM": "xterm-256color", "COLORTERM": "truecolor",
}  # fmt: skip
LOCALES = [
    {"LC_ALL": "C"},
    {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    {"LC_ALL": "en_US.ISO-8859-1", "PYTHONUTF8": "0"},
    {"PYTHONIOENCODING": "ascii"},
    {"PYTHONIOENCODING": "latin-1:strict", "PYTHONUTF8": "0"},
    {"PYTHONIOENCODING": "utf-16"},
]
OUTPUT_COMMANDS = ["--help", "--version", "sample --help", "info tiny", "sample tiny -n 3"]


@pytest.fixture
def models_directory(tmp_path: Path, tiny_path: Path) -> Path:
    """A directory in which ``tiny`` is the name of a model."""
    (tmp_path / "checkpoints").mkdir()
    tiny_path.rename(tmp_path / "checkpoints" / tiny_path.name)
    return tmp_path


def shell(
    script: str, *arguments: str | Path, cwd: Path, program: Sequence[str] = PROGRAM, **options: object
) -> subprocess.CompletedProcess[bytes]:
    """Run a bash script in which ``"$@"`` is charrnn with these arguments."""
    return subprocess.run(
        ["bash", "-c", script, "bash", *program, *map(str, arguments)],
        cwd=cwd, env=environment(), capture_output=True, timeout=100, check=False, **options,
    )  # fmt: skip


# stdout


@pytest.mark.parametrize("length", [1, 7, 1000])
def test_sample_writes_exactly_the_given_number_of_characters(charrnn: Charrnn, wide_path: Path, length: int) -> None:
    result = charrnn("sample", wide_path, "-n", length)

    assert (result.returncode, result.stderr) == (0, b"")
    assert len(result.stdout.decode()) == length


def test_the_prompt_is_not_counted_and_not_written_by_default(charrnn: Charrnn, wide_path: Path) -> None:
    plain = charrnn("sample", wide_path, "--seed", 1, "-n", 50, "-p", "é€é€").stdout.decode()
    echoed = charrnn("sample", wide_path, "--seed", 1, "-n", 50, "-p", "é€é€", "--echo").stdout.decode()

    assert len(plain) == 50
    assert echoed == "é€é€" + plain


def test_the_prompt_changes_the_sample(charrnn: Charrnn, wide_path: Path) -> None:
    first, second = (
        charrnn("sample", wide_path, "--seed", 1, "-n", 200, "-p", prompt).stdout for prompt in ("é", "й𝄞й")
    )

    assert first != second


@pytest.mark.parametrize("locale", LOCALES, ids=lambda locale: ",".join(map("=".join, locale.items())))
def test_a_sample_is_utf8_under_any_locale(
    charrnn: Charrnn, charrnn_process: Charrnn, wide_path: Path, locale: dict[str, str]
) -> None:
    plain = charrnn("sample", wide_path, "--seed", 1, "-n", 300)
    result = charrnn_process("sample", wide_path, "--seed", 1, "-n", 300, env=locale)  # read when Python starts

    assert (result.returncode, result.stderr) == (0, b"")
    assert result.stdout == plain.stdout
    assert set(result.stdout.decode("utf-8")) == set(WIDE)


@pytest.mark.parametrize("command", OUTPUT_COMMANDS)
def test_no_escape_sequence_is_written_even_if_colour_is_forced(
    charrnn: Charrnn, models_directory: Path, command: str
) -> None:
    result = charrnn(*command.split(), env=COLOURFUL)

    assert result.returncode == 0
    assert result.stdout
    assert b"\x1b" not in result.stdout + result.stderr


def test_info_shows_control_characters_as_escapes(charrnn: Charrnn, tmp_path: Path) -> None:
    model = make_checkpoint(text="a\x1b[31m\r\n")
    corpus = replace(model.training.corpus, name="\x1b[2Jgone\n")
    checkpoint.save(tmp_path / "x.safetensors", replace(model, training=replace(model.training, corpus=corpus)))

    shown = charrnn("info", "x.safetensors").stdout.decode()

    assert all(line.isprintable() for line in shown.split("\n"))
    assert "\\x1b[2Jgone\\n, " in shown


def test_a_sample_is_written_while_it_is_generated(wide_path: Path, warm: list[str]) -> None:
    with running("sample", wide_path, "-n", 0, program=warm) as process:
        sizes = [len(os.read(process.stdout.fileno(), 1 << 16)) for _ in range(50)]

        assert process.poll() is None
    assert min(sizes) < 512  # a buffer would write thousands of bytes at once


def test_train_writes_only_the_path_of_the_model_to_stdout(trained: Run) -> None:
    assert trained.code == 0
    assert trained.stdout == b"checkpoints/corpus.safetensors\n"
    assert checkpoint.load(trained.model).training.corpus.characters == len(CORPUS)


def test_sample_accepts_the_path_that_train_writes(trained: Run, charrnn: Charrnn) -> None:
    result = charrnn("sample", trained.stdout.decode().strip(), "-n", 20, cwd=trained.folder)

    assert (result.returncode, len(result.stdout)) == (0, 20)


@pytest.fixture(scope="module")
def evaluated(trained: Run) -> subprocess.CompletedProcess[bytes]:
    return within(trained.folder)("eval", "corpus", "corpus.txt", "--json", "--reset", "50", "--threads", "1")


def test_eval_writes_one_json_object_and_nothing_else(evaluated: subprocess.CompletedProcess[bytes]) -> None:
    facts = json.loads(evaluated.stdout)

    assert (evaluated.returncode, evaluated.stderr) == (0, b"")
    assert facts["characters"] == len(CORPUS) - 1
    assert 0 < facts["bits_per_char"] < facts["reset_bits_per_char"] < 6


def test_info_writes_one_json_object_and_nothing_else(charrnn: Charrnn, wide_path: Path) -> None:
    result = charrnn("info", wide_path, "--json")

    assert (result.returncode, result.stderr) == (0, b"")
    assert sorted(json.loads(result.stdout)["vocabulary"]) == sorted(WIDE)


# stdin


def test_sample_reads_no_line_of_a_while_read_loop(models_directory: Path, warm: list[str]) -> None:
    result = shell(
        'while read -r word; do echo "$word"; "$@" >/dev/null; done',
        "sample", "tiny", "-n", "3", program=warm, cwd=models_directory, input=b"one\ntwo\nthree\n",
    )  # fmt: skip

    assert result.stdout == b"one\ntwo\nthree\n"


@pytest.mark.parametrize("command", ["sample tiny -n 3", "info tiny", "eval tiny short.txt --threads 1"])
def test_a_command_does_not_read_stdin(charrnn: Charrnn, models_directory: Path, command: str) -> None:
    (models_directory / "short.txt").write_text("The lazy dog.\n")
    with open(models_directory / "short.txt") as stdin:
        result = charrnn(*command.split(), stdin=stdin)

        assert result.returncode == 0
        assert os.lseek(stdin.fileno(), 0, os.SEEK_CUR) == 0


def test_train_does_not_read_stdin(trained: Run) -> None:
    assert trained.stdin_taken == 0


def test_a_dash_reads_the_prompt_from_stdin(charrnn: Charrnn, wide_path: Path) -> None:
    direct = charrnn("sample", wide_path, "--seed", 1, "-n", 50, "--echo", "-p", "é€\nй")
    piped = charrnn("sample", wide_path, "--seed", 1, "-n", 50, "--echo", "-p", "-", input="é€\nй".encode())

    assert piped.stdout == direct.stdout
    assert piped.stderr == b""


def test_a_dash_with_a_closed_stdin_is_an_error(models_directory: Path) -> None:
    result = shell('exec "$@" <&-', "sample", "tiny", "-p", "-", cwd=models_directory)

    assert result.returncode == 1
    assert "stdin is closed" in one_line(result)


@pytest.fixture(scope="module")
def piped(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of ``... | charrnn train - -q --force -o old`` that replaces a model."""
    directory = tmp_path_factory.mktemp("piped")
    checkpoint.save(directory / "checkpoints" / "old.safetensors", make_checkpoint())
    result = within(directory)("train", "-", "-q", "--force", "-o", "old", *QUICK, input=CORPUS.encode())
    return Run(directory, result.returncode, result.stdout, result.stderr)


def test_a_dash_trains_on_stdin(piped: Run) -> None:
    assert piped.stdout == b"checkpoints/old.safetensors\n"
    assert checkpoint.load(piped.model).training.corpus.characters == len(CORPUS)


def test_quiet_training_writes_nothing_to_stderr(piped: Run) -> None:
    assert (piped.code, piped.stderr) == (0, b"")


def test_force_replaces_a_model(piped: Run, tiny: checkpoint.Checkpoint) -> None:
    assert piped.model.read_bytes() != checkpoint.to_bytes(tiny)


def test_a_dash_and_a_file_train_the_same_model(piped: Run, trained: Run) -> None:
    from_stdin, from_file = checkpoint.load(piped.model), checkpoint.load(trained.model)

    assert from_stdin.training.corpus.sha256 == from_file.training.corpus.sha256
    assert from_stdin.training.validation_nats == from_file.training.validation_nats


# Exit codes and signals


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("sample tiny -n 3", 0), ("info tiny", 0), ("--help", 0), ("--version", 0),
        ("sample missing", 1), ("info missing", 1), ("train nothing.txt", 1), ("eval missing tiny.txt", 1),
        ("corpus", 2), ("nonsense", 2), ("sample --nonsense", 2), ("train", 2), ("eval tiny", 2),
        ("info a b", 2), ("sample tiny -n many", 2), ("sample tiny --temp", 2),
    ],
)  # fmt: skip
def test_the_exit_code_distinguishes_failure_and_wrong_usage(
    charrnn: Charrnn, models_directory: Path, command: str, code: int
) -> None:
    result = charrnn(*command.split())

    assert result.returncode == code
    if code:
        assert result.stdout == b""
        one_line(result)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["INT", "TERM"])
def test_a_signal_ends_a_sample_without_a_message(wide_path: Path, number: signal.Signals, code: int) -> None:
    with running("sample", wide_path, "-n", 0) as process:
        process.stdout.read(10)
        process.send_signal(number)
        stderr = process.communicate()[1]

        assert (process.returncode, stderr) == (code, b"")


@pytest.fixture(scope="module", params=[signal.SIGINT, signal.SIGTERM], ids=["INT", "TERM"])
def interrupted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, warm: list[str]) -> Run:
    """A training run that received a signal after the first evaluation."""
    directory = tmp_path_factory.mktemp("interrupted")
    (directory / "corpus.txt").write_text(CORPUS)
    with running("train", "corpus.txt", *ENDLESS, program=warm, cwd=directory) as process:
        lines = []
        while not lines or lines[-1][:4] not in (b"step", b""):
            lines.append(process.stderr.readline())
        process.send_signal(request.param)
        stdout, stderr = process.communicate()
    assert process.returncode == 128 + request.param
    return Run(directory, process.returncode, stdout, b"".join(lines) + stderr)


def test_a_signal_ends_training_and_saves_the_best_model(interrupted: Run) -> None:
    record = checkpoint.load(interrupted.model).training

    assert interrupted.stdout == b"checkpoints/corpus.safetensors\n"
    assert 0 < record.best_step < 20000


def test_a_signal_ends_training_with_a_summary_and_no_traceback(interrupted: Run) -> None:
    summary, resume, following = interrupted.stderr.decode().splitlines()[-3:]

    assert summary.startswith("stopped at step ")
    assert " bits per character " in summary
    assert resume == "resume: charrnn train --resume -o corpus corpus.txt"
    assert following == "next: charrnn sample corpus --temp 0.8"
    assert b"Traceback" not in interrupted.stderr


# Closed pipes, full disks, closed streams


@pytest.mark.parametrize("command", [*OUTPUT_COMMANDS, "sample tiny -n 0"])
def test_a_closed_pipe_is_no_failure_and_gives_no_message(
    charrnn_process: Charrnn, models_directory: Path, command: str
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "wb") as stdout:  # Python flushes it again at exit
        result = charrnn_process(*command.split(), stdout=stdout)

    assert (result.returncode, result.stderr) == (0, b"")


def test_head_ends_an_endless_sample(models_directory: Path) -> None:
    result = shell('"$@" | head -c 10; echo " ${PIPESTATUS[0]}"', "sample", "tiny", "-n", "0", cwd=models_directory)

    assert re.fullmatch(rb".{10} 0\n", result.stdout, re.DOTALL)
    assert result.stderr == b""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
@pytest.mark.parametrize("command", OUTPUT_COMMANDS)
def test_a_full_disk_is_a_one_line_error(charrnn_process: Charrnn, models_directory: Path, command: str) -> None:
    with open("/dev/full", "wb") as full:  # Python flushes it again at exit
        result = charrnn_process(*command.split(), stdout=full)

    assert result.returncode == 1
    assert "no space left on device" in one_line(result)


@pytest.mark.parametrize("command", OUTPUT_COMMANDS)
def test_a_closed_stdout_is_a_one_line_error(models_directory: Path, command: str) -> None:
    result = shell('exec "$@" >&-', *command.split(), cwd=models_directory)

    assert result.returncode == 1
    assert "stdout: is closed; " in one_line(result)


@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full", "2> >(exec <&-)"], ids=["closed", "full", "gone"])
def test_an_unusable_stderr_does_not_affect_a_sample(
    charrnn: Charrnn, models_directory: Path, redirection: str
) -> None:
    arguments = ("sample", "-n", "30", "--seed", "1", "-p", "oé", "--unknown", "skip")
    expected = charrnn(*arguments)
    result = shell(f'exec "$@" {redirection}', *arguments, cwd=models_directory)

    assert len(expected.stderr.splitlines()) == 2
    assert (result.returncode, result.stdout) == (0, expected.stdout)


def test_an_error_with_a_closed_stderr_is_still_an_error(models_directory: Path) -> None:
    result = shell('exec "$@" 2>&-', "sample", "missing", cwd=models_directory)

    assert (result.returncode, result.stdout) == (1, b"")


def test_train_works_with_a_closed_stderr(tmp_path: Path) -> None:
    (tmp_path / "corpus.txt").write_text(CORPUS)
    result = shell('exec "$@" 2>&-', "train", "corpus.txt", *QUICK, cwd=tmp_path)

    assert (result.returncode, result.stdout) == (0, b"checkpoints/corpus.safetensors\n")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_train_keeps_the_model_if_the_path_cannot_be_written(charrnn: Charrnn, tmp_path: Path) -> None:
    (tmp_path / "corpus.txt").write_text(CORPUS)
    with open("/dev/full", "wb") as full:
        result = charrnn("train", "corpus.txt", "-q", *QUICK, stdout=full)

    assert result.returncode == 1
    assert "no space left on device" in one_line(result)
    assert checkpoint.load(tmp_path / "checkpoints" / "corpus.safetensors").training.best_step > 0


# stderr without a terminal


def test_without_a_terminal_there_is_one_plain_line_per_evaluation(trained: Run) -> None:
    steps = [line for line in trained.stderr.decode().splitlines() if line.startswith("step ")]

    assert [int(line.split()[1]) for line in steps] == [4, 8, 12, 16, 20]
    assert all(
        re.fullmatch(r"step .* train \d\.\d{3}  validation \d\.\d{3} bits/char(  best)?", line) for line in steps
    )


def test_without_a_terminal_no_control_characters_are_written(trained: Run) -> None:
    assert b"\r" not in trained.stderr
    assert b"\x1b" not in trained.stderr


def test_control_characters_in_a_file_name_are_escaped(
    charrnn: Charrnn, tmp_path: Path, tiny: checkpoint.Checkpoint
) -> None:
    checkpoint.save(tmp_path / "checkpoints" / "a\x1b[31m\nb.safetensors", tiny)

    result = charrnn("sample", "-n", 3)

    assert result.returncode == 0
    assert result.stderr == b"charrnn: sampling checkpoints/a\\x1b[31m\\nb.safetensors\n"


# Checks, imports and files


@pytest.mark.parametrize(
    "option",
    [
        *(f"sample --temp={value}" for value in ("nan", "inf", "-inf", "-1", "-0.001")),
        "sample -n -1", "sample --top-k -1", "sample --top-p 0", "sample --top-p nan", "sample --min-p 1.5",
        "sample --seed -1", "sample --unknown maybe",
        "train --hidden 0", "train --layers 0", "train --embedding -1", "train --dropout 1", "train --steps 0",
        "train --epochs 0", "train --minutes inf", "train --lr nan", "train --lr 0", "train --grad-clip nan",
        "train --validation 1", "train --batch-size 0", "train --seq-length 0", "train --patience -1",
        "train --seed -1", "train --threads -1", "train --cell elman", "train --device abacus",
        "train --precision fp8",
        "eval --reset 0", "eval --unknown maybe", "eval --device abacus",
    ],
)  # fmt: skip
def test_an_invalid_value_is_rejected_before_anything_is_read_or_imported(
    tmp_path: Path, without_torch: Charrnn, option: str
) -> None:
    command, flag = re.split("[ =]", option)[:2]
    operands = {"sample": ["missing"], "train": ["nothing.txt"], "eval": ["missing", "nothing.txt"]}[command]

    result = without_torch(command, *operands, *option.split()[1:])

    assert (result.returncode, result.stdout) == (2, b"")
    assert one_line(result).startswith(f"charrnn: {'--length' if flag == '-n' else flag}: invalid value ")
    assert files(tmp_path) == {}


def test_steps_and_epochs_cannot_be_combined(charrnn: Charrnn, tmp_path: Path) -> None:
    result = charrnn("train", "nothing.txt", "--steps", 5, "--epochs", 1)

    assert result.returncode == 2
    assert one_line(result) == "charrnn: --steps: cannot be combined with --epochs; give one of them\n"


@pytest.mark.parametrize(
    "command", [*OUTPUT_COMMANDS, "train --help", "corpus list", "corpus check corpus.txt", "info --json"]
)
def test_torch_is_not_imported(models_directory: Path, without_torch: Charrnn, command: str) -> None:
    (models_directory / "corpus.txt").write_text(CORPUS)

    result = without_torch(*command.split())

    assert result.returncode == 0
    assert b"torch was imported" not in result.stderr


def test_an_unusable_text_leaves_no_files(charrnn: Charrnn, tmp_path: Path) -> None:
    for out in ("name", "some/where/else"):
        assert charrnn("train", "nothing.txt", "-o", out).returncode == 1

    assert files(tmp_path) == {}


def test_train_writes_only_the_model_the_training_state_and_the_log(trained: Run) -> None:
    written = {name for name in files(trained.folder) if (trained.folder / name).is_file()}

    suffixes = ("safetensors", "training.safetensors", "training.safetensors.old", "jsonl")
    assert written == {"corpus.txt", *(f"checkpoints/corpus.{suffix}" for suffix in suffixes)}


def test_reading_a_model_writes_no_files(charrnn: Charrnn, models_directory: Path) -> None:
    before = files(models_directory)
    for command in ("sample -n 5", "sample tiny -n 5", "info tiny", "info", "corpus list"):
        assert charrnn(*command.split()).returncode == 0

    assert files(models_directory) == before


# Seeds and stop strings


def test_without_a_seed_every_sample_is_different(charrnn: Charrnn, wide_path: Path) -> None:
    assert charrnn("sample", wide_path).stdout != charrnn("sample", wide_path).stdout


@pytest.mark.parametrize("options", [(), ("--temp", "0.5", "--top-k", "5"), ("--top-p", "0.9", "--min-p", "0.01")])
def test_the_same_seed_gives_the_same_bytes_and_a_longer_sample_starts_with_them(
    charrnn: Charrnn, wide_path: Path, options: tuple[str, ...]
) -> None:
    short, again, long = (
        charrnn("sample", wide_path, "--seed", 7, "-n", length, *options).stdout for length in (1000, 1000, 2000)
    )

    assert short == again
    assert long.startswith(short)
    assert len(long.decode()) == 2000


def test_samples_at_temperature_zero_are_equal_without_a_seed(charrnn: Charrnn, wide_path: Path) -> None:
    assert charrnn("sample", wide_path, "--temp", 0).stdout == charrnn("sample", wide_path, "--temp", 0).stdout


@pytest.mark.parametrize("stop", ["\n", "é", "𝄞", "éй", "€\n", "уу𝄞"])
def test_a_sample_ends_before_the_stop_string(charrnn: Charrnn, wide_path: Path, stop: str) -> None:
    unstopped = charrnn("sample", wide_path, "--seed", 3, "-n", 3000).stdout.decode()
    result = charrnn("sample", wide_path, "--seed", 3, "-n", 3000, "--stop", stop)

    assert stop in unstopped
    assert result.stdout.decode() == unstopped[: unstopped.index(stop)]


def test_a_stop_string_that_does_not_occur_changes_nothing(charrnn: Charrnn, wide_path: Path) -> None:
    unstopped = charrnn("sample", wide_path, "--seed", 3, "-n", 3000)
    result = charrnn("sample", wide_path, "--seed", 3, "-n", 3000, "--stop", "éééééééé!")

    assert result.stdout == unstopped.stdout
