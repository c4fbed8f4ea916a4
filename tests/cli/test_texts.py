"""Texts of every kind: lines, documents, bytes, compressed files, other encodings, large files."""

import base64
import gzip
import json
import os
import shlex
import signal
import subprocess
import time
from pathlib import Path

import pytest

from charrnn import checkpoint
from tests.cli.conftest import CORPUS, ENDLESS, NETWORK, PROGRAM, QUICK, file_size_limit, running
from tests.conftest import Charrnn, environment, one_line, within

NAMES = (
    "".join(f"{first}{second}\n" for first in ("an", "be", "ca", "do") for second in ("na", "ra", "mi", "lo")) * 20
)
LONG_RUN = (*NETWORK, "--steps", "300", "--lr", "0.02", "--patience", "0")


def train(directory: Path, *arguments: str | Path) -> None:
    """Run ``charrnn train``, and check that it succeeds without a message."""
    result = within(directory)("train", *arguments, "--quiet")
    assert (result.returncode, result.stderr) == (0, b"")


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that has learned the lines of NAMES as documents."""
    directory = tmp_path_factory.mktemp("names")
    (directory / "names.txt").write_text(NAMES)
    train(directory, "names.txt", "--lines", *LONG_RUN)
    return directory / "checkpoints" / "names.safetensors"


def test_a_model_of_lines_generates_one_complete_line(charrnn: Charrnn, names: Path) -> None:
    text = charrnn("sample", names, "--seed", 1).stdout.decode()
    assert text.count("\n") == 1
    assert text.endswith("\n")
    assert text.removesuffix("\n") in NAMES.split()


def test_a_model_of_lines_generates_the_given_number_of_lines(charrnn: Charrnn, names: Path) -> None:
    lines = charrnn("sample", names, "--count", 40, "--seed", 1).stdout.decode().splitlines()
    assert len(lines) == 40
    assert sum(line in NAMES.split() for line in lines) > 30
    assert len(set(lines)) > 5
    first = charrnn("sample", names, "--seed", 1).stdout.decode()
    assert first == lines[0] + "\n"  # the first sample does not depend on the others


def test_a_prompt_starts_the_document(charrnn: Charrnn, names: Path) -> None:
    text = charrnn("sample", names, "-p", "be", "--echo", "--seed", 1).stdout.decode()
    assert text.startswith("be")
    assert text.removesuffix("\n") in NAMES.split()
    lines = charrnn("sample", names, "--prompts", "-", "--echo", input=b"ca\nd\n").stdout.decode().splitlines()
    assert [line[0] for line in lines] == ["c", "d"]


def test_a_record_says_how_the_sample_ended(charrnn: Charrnn, names: Path) -> None:
    output = charrnn("sample", names, "--count", 3, "--json", "--logprobs", 2, "--seed", 1).stdout.decode()
    for line in output.splitlines():
        record = json.loads(line)
        assert record["stop_reason"] == "end"
        assert record["text"] == "".join(entry["character"] for entry in record["logprobs"])
        assert len(record["text"]) == record["characters"]
    short = json.loads(charrnn("sample", names, "-n", 2, "--json").stdout)
    assert (short["stop_reason"], len(short["text"])) == ("length", 2)


def test_a_saved_state_continues_the_document(charrnn: Charrnn, names: Path, tmp_path: Path) -> None:
    direct = charrnn("sample", names, "-p", "be", "--seed", 3, "--save-state", "state").stdout
    assert charrnn("sample", names, "--load-state", "state", "--seed", 3).stdout == direct


def test_eval_reads_a_text_as_in_training(charrnn: Charrnn, names: Path, tmp_path: Path) -> None:
    (tmp_path / "some.txt").write_text("\n\nana\r\nbera\ncami")
    (tmp_path / "other.txt").write_text("cami\nana\nbera\n")
    first, second = (json.loads(charrnn("eval", names, name, "--json").stdout) for name in ("some.txt", "other.txt"))
    assert first["characters"] == second["characters"] == len("ana.bera.cami.")  # "." is a document boundary
    assert first["nats"] == pytest.approx(second["nats"], abs=1e-6)  # the order of documents does not matter


def test_skipping_unknown_characters_keeps_the_documents(charrnn: Charrnn, names: Path, tmp_path: Path) -> None:
    (tmp_path / "plain.txt").write_text("ana\nbera\ncami\n")
    (tmp_path / "unknown.txt").write_text("aXna\nberYa\nZ\ncami\n")
    plain, unknown = (
        charrnn("eval", names, f"{name}.txt", "--json", "--unknown", "skip") for name in ("plain", "unknown")
    )
    assert unknown.stdout == plain.stdout
    assert b"U+000A" not in unknown.stderr


def test_info_shows_how_the_text_was_read(charrnn: Charrnn, names: Path) -> None:
    output = charrnn("info", names).stdout.decode()
    assert "in 320 documents" in output
    assert "\udf00" not in output
    assert "--lines" in output.split("charrnn train", 1)[1]


@pytest.mark.parametrize(("option", "separator"), [(("--documents", "\n%\n"), "\n%\n"), (("--files",), "\n")])
def test_documents_are_written_with_the_separator_of_the_text(
    charrnn: Charrnn, tmp_path: Path, option: tuple[str, ...], separator: str
) -> None:
    for number in range(9):
        (tmp_path / f"{number}.txt").write_text("roses are red\nviolets\n%\nsugar is sweet\nand so")
    train(tmp_path, ".", "-o", "verse", *option, *QUICK)
    loaded = checkpoint.load(tmp_path / "checkpoints" / "verse.safetensors")
    assert loaded.training.corpus.num_documents == (18 if "%" in separator else 9)
    text = charrnn("sample", "verse", "-n", 9, "--count", 2, "--seed", 1).stdout.decode()
    assert text.endswith(separator)
    assert text.count(separator) >= 2


def test_an_interrupted_run_on_documents_ends_with_the_same_weights(tmp_path: Path, warm: list[str]) -> None:
    (tmp_path / "names.txt").write_text(NAMES)
    settings = (
        "--lines",
        *NETWORK[:-2],
        "--engine",
        "native",
        "--patience",
        "0",
        "--dropout",
        "0.2",
        "--steps",
        "400",
    )
    train(tmp_path, "names.txt", "-o", "uninterrupted", *settings)
    command = ("train", "names.txt", "-o", "interrupted", *settings, "--save-every", "0.01")
    with running(*command, program=warm, cwd=tmp_path) as process:
        state = tmp_path / "checkpoints" / "interrupted.training.safetensors"
        while process.poll() is None and not state.exists():
            time.sleep(0.01)
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        assert process.wait() in (0, 130)
    train(tmp_path, "names.txt", "-o", "interrupted", "--resume")  # with the reading options of the run
    uninterrupted, interrupted = (
        checkpoint.load(tmp_path / "checkpoints" / f"{name}.safetensors") for name in ("uninterrupted", "interrupted")
    )
    assert all((uninterrupted.tensors[name] == interrupted.tensors[name]).all() for name in uninterrupted.tensors)


def test_resume_rejects_another_way_of_reading_the_text(charrnn: Charrnn, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text(NAMES)
    train(tmp_path, "names.txt", "--lines", *QUICK)
    result = charrnn("train", "names.txt", "--resume", "--steps", 30, "--unit", "byte")
    assert result.returncode == 2
    assert one_line(result).startswith("charrnn: --unit: cannot be byte, because the run started with char")


def test_from_reads_another_text_in_the_same_way(charrnn: Charrnn, names: Path, tmp_path: Path) -> None:
    (tmp_path / "more.txt").write_text("émi\néra\n" * 60)
    train(tmp_path, "more.txt", "--from", names, "--steps", "5", "--threads", "1", "--engine", "torch")
    more = checkpoint.load(tmp_path / "checkpoints" / "more.safetensors")
    assert more.training.corpus.num_documents == 120
    assert more.vocabulary.symbols == checkpoint.load(names).vocabulary.symbols + "é"


# Bytes


@pytest.fixture(scope="module")
def byte_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("bytes")
    (directory / "poem.txt").write_text("né à Zürich, où l'été\n" * 60, encoding="utf-8")
    train(directory, "poem.txt", "--unit", "byte", *QUICK)
    return directory / "checkpoints" / "poem.safetensors"


def test_any_file_can_be_trained_on_as_bytes(charrnn: Charrnn, tmp_path: Path) -> None:
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\xff" + bytes(range(256)) * 9)
    train(tmp_path, "picture.png", "--unit", "byte", *QUICK)
    result = charrnn("sample", "picture", "-n", 500, "--seed", 1)
    assert len(result.stdout) == 500
    assert len(set(result.stdout)) > 20


def test_utf8_restricts_a_byte_model_to_complete_characters(charrnn: Charrnn, byte_model: Path) -> None:
    plain = charrnn("sample", byte_model, "-n", 300, "--seed", 1, "--temp", 2)
    valid = charrnn("sample", byte_model, "-n", 300, "--seed", 1, "--temp", 2, "--utf8")
    with pytest.raises(UnicodeDecodeError):
        plain.stdout.decode()
    assert valid.stdout.decode()
    assert 297 <= len(valid.stdout) <= 300
    for line in charrnn("sample", byte_model, "-n", 9, "--count", 20, "-0", "--utf8").stdout.split(b"\0"):
        line.decode()


@pytest.mark.parametrize("prompt", ["ça été", b"\xff\xc3"])
def test_a_byte_model_accepts_every_prompt(charrnn: Charrnn, byte_model: Path, prompt: str | bytes) -> None:
    direct = charrnn("sample", byte_model, "-p", prompt, "--echo", "-n", 5) if isinstance(prompt, str) else None
    data = prompt.encode() if isinstance(prompt, str) else prompt
    piped = charrnn("sample", byte_model, "-p", "-", "--echo", "-n", 5, input=data)
    for result in filter(None, (direct, piped)):
        assert result.returncode == 0, result.stderr
        assert result.stdout.startswith(data)
        assert len(result.stdout) == len(data) + 5


def test_a_json_record_contains_the_exact_bytes(charrnn: Charrnn, byte_model: Path) -> None:
    plain = charrnn("sample", byte_model, "-n", 60, "--seed", 1, "--temp", 2).stdout
    record = json.loads(charrnn("sample", byte_model, "-n", 60, "--seed", 1, "--temp", 2, "--json").stdout)
    assert record["text"] == plain.decode(errors="replace")
    assert base64.b64decode(record["base64"]) == plain
    valid = json.loads(charrnn("sample", byte_model, "-n", 60, "--utf8", "--json").stdout)
    assert "base64" not in valid


@pytest.mark.parametrize("option", [("--encoding", "cp1251"), ("--normalize", "nfc"), ("--min-count", "2")])
def test_options_for_characters_are_rejected_for_bytes_at_once(
    option: tuple[str, str], without_torch: Charrnn
) -> None:
    refused = without_torch("train", "missing.txt", "--unit", "byte", *option)
    assert refused.returncode == 2
    assert "applies to characters only, not to bytes" in one_line(refused)


# Sources


def test_compressed_files_other_encodings_and_directories_are_read(charrnn: Charrnn, tmp_path: Path) -> None:
    text = "Мама мыла раму.\r\n" * 30
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "a.py").write_text(text, newline="")
    (tmp_path / "packed.gz").write_bytes(gzip.compress(text.encode("cp1251")))
    (tmp_path / "wide.txt").write_bytes(text.encode("utf-16"))
    checks = (
        ("plain", "--glob", "**/*.py"), ("packed.gz", "--encoding", "cp1251"), ("wide.txt",),
        ("plain/a.py", "--normalize", "nfc"),
    )  # fmt: skip
    digests = {json.loads(charrnn("corpus", "check", *check, "--json").stdout)["sha256"] for check in checks}
    assert len(digests) == 1
    kept = json.loads(charrnn("corpus", "check", "plain/a.py", "--newlines", "keep", "--json").stdout)
    assert kept["sha256"] not in digests


def test_a_pipe_is_read_like_a_file(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(CORPUS)
    command = f"{' '.join(PROGRAM)} corpus check <(cat a.txt) --json"
    piped = subprocess.run(["bash", "-c", command], cwd=tmp_path, env=environment(), capture_output=True, timeout=60)
    assert json.loads(piped.stdout)["characters"] == len(CORPUS)


def test_a_file_skipped_in_a_directory_gets_a_note(charrnn: Charrnn, tmp_path: Path) -> None:
    (tmp_path / "all").mkdir()
    (tmp_path / "all" / "a.txt").write_text(CORPUS)
    (tmp_path / "all" / "b.png").write_bytes(b"\x89PNG\0")
    os.symlink("..", tmp_path / "all" / "loop")
    os.mkfifo(tmp_path / "all" / "pipe.txt")
    result = charrnn("train", "all", "--glob", "**/*", *QUICK)
    assert result.returncode == 0, result.stderr
    assert b"note: skipped binary file all/b.png\n" in result.stderr


def test_the_resume_command_reads_the_same_text(charrnn: Charrnn, tmp_path: Path, warm: list[str]) -> None:
    (tmp_path / "my code").mkdir()
    (tmp_path / "my code" / "a.py").write_text(CORPUS)
    options = ("--glob", "**/*.py", "--cache", "my ids", "--lines")
    with running("train", "my code", "-o", "m", *options, *ENDLESS, program=warm, cwd=tmp_path) as process:
        while process.poll() is None and not (tmp_path / "checkpoints" / "m.safetensors").exists():
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    command = next(line for line in stderr.decode().splitlines() if line.startswith("resume: ")).removeprefix(
        "resume: "
    )
    arguments = shlex.split(command)
    assert arguments[0] == "charrnn"
    resumed = charrnn(*arguments[1:], "--steps", 1)
    assert b"--steps: cannot be 1, " in resumed.stderr  # the run has taken more than one step


def test_an_interrupted_read_leaves_no_temporary_files(tmp_path: Path, warm: list[str]) -> None:
    with running(
        "train", "-", "--cache", "cache", *QUICK, stdin=subprocess.PIPE, program=warm, cwd=tmp_path
    ) as process:
        assert process.stdin is not None
        process.stdin.write(b"text " * 500_000)
        process.stdin.flush()
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 143
        process.stdin.close()
    (tmp_path / "a.txt").write_bytes(b"text " * 200_000)
    os.mkfifo(tmp_path / "b.txt")
    with (
        running("train", "a.txt", "b.txt", "--cache", "cache", *QUICK, program=warm, cwd=tmp_path) as process,
        open(tmp_path / "b.txt", "wb"),  # waits until a.txt is read and b.txt is opened
    ):
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130
    assert not list(tmp_path.rglob("*.tmp"))
    assert not list(tmp_path.rglob("*.lock"))


@pytest.mark.parametrize("path", ["file", "loop/deeper"])
def test_training_continues_without_an_unusable_cache(charrnn: Charrnn, tmp_path: Path, path: str) -> None:
    (tmp_path / "a.txt").write_text(CORPUS)
    (tmp_path / "file").write_text("")
    os.symlink("loop", tmp_path / "loop")
    result = charrnn("train", "a.txt", "--cache", path, *QUICK)
    assert b"Traceback" not in result.stderr
    assert result.returncode == 0


def test_lines_and_documents_cannot_be_combined(charrnn: Charrnn) -> None:
    refused = charrnn("train", "a.txt", "--lines", "--documents", "%")
    assert refused.returncode == 2
    assert one_line(refused) == "charrnn: --documents: cannot be combined with --lines; give one of them\n"


def test_thousands_of_small_files_are_read_as_documents(charrnn: Charrnn, tmp_path: Path) -> None:
    (tmp_path / "mail").mkdir()
    for number in range(3000):
        (tmp_path / "mail" / f"{number}.txt").write_text(f"mail {number}")
    facts = json.loads(charrnn("corpus", "check", "mail", "--files", "--json").stdout)
    assert (facts["documents"], facts["longest_document"]) == (3000, 9)


def test_check_shows_lines_documents_and_baselines(charrnn: Charrnn, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text(NAMES + "a longer line\n")
    output = charrnn("corpus", "check", "names.txt", "--lines").stdout.decode()
    assert "lines         321, the longest with 13 characters; 304 repeat an earlier line\n" in output
    assert "documents     321, the longest with 13 characters\n" in output
    facts = json.loads(charrnn("corpus", "check", "names.txt", "--lines", "--json").stdout)
    assert (facts["lines"], facts["documents"], facts["longest_document"]) == (321, 321, 13)
    assert 0 < facts["markov_bits"] < 2
    assert 0 < facts["xz_bits"] < 2
    assert f"{facts['markov_bits']:.2f} under an order-3 Markov model, {facts['xz_bits']:.2f} under xz" in output


def test_check_shows_rare_bytes_in_hexadecimal(charrnn: Charrnn, tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"\xff\n" + b"text " * 20)
    output = charrnn("corpus", "check", "a.bin", "--unit", "byte").stdout.decode()
    assert "1 x byte 0xff\n" in output
    assert json.loads(charrnn("corpus", "check", "a.bin", "--unit", "byte", "--json").stdout)["rare"]["<0xff>"] == 1


@pytest.mark.parametrize(
    ("text", "option"),
    [("aa", ()), (CORPUS[:1000], ("--lines",))],
)
def test_the_smallest_texts_train_and_sample(
    charrnn: Charrnn, tmp_path: Path, text: str, option: tuple[str, ...]
) -> None:
    (tmp_path / "a.txt").write_text(text)
    result = charrnn("train", "a.txt", "--steps", "3", "--hidden", "16", *NETWORK[-6:], *option)
    assert result.returncode == 0, result.stderr
    assert b"too few for a validation text" in result.stderr
    assert b"no validation text, so its quality on other text is unknown" in result.stderr
    sampled = charrnn("sample", "a", "-n", 20, "--seed", 1)
    assert sampled.returncode == 0
    if "--unit" not in option:
        assert set(sampled.stdout) <= set(text.encode() + b"\n")


# Large texts


def peak_memory(*arguments: str | Path, cwd: Path) -> float:
    """Return the peak memory of a command in MB, including pages of mapped files."""
    with running(*arguments, cwd=cwd, stderr=subprocess.DEVNULL) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_maxrss / 1024


def test_memory_hardly_grows_with_the_size_of_the_text(charrnn: Charrnn, tmp_path: Path) -> None:
    (tmp_path / "small.txt").write_text(CORPUS * 300)
    with open(tmp_path / "large.txt", "w") as file:
        for _ in range(50):
            file.write(CORPUS * 600)
    settings = (*NETWORK[:4], *NETWORK[6:], "--steps", "2")
    small, large = (peak_memory("train", name, *settings, cwd=tmp_path) for name in ("small.txt", "large.txt"))
    assert os.path.getsize(tmp_path / "large.txt") > 100e6
    assert large < small + 60
    (cached,) = (tmp_path / "checkpoints" / "cache").glob("large-*.ids")
    result = charrnn("train", "large.txt", "-f", *settings)
    assert f"note: read the encoded text from {cached.resolve()}, ".encode() in result.stderr


def test_the_cache_is_read_instead_of_the_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.txt").write_text(CORPUS)
    train(tmp_path, "a.txt", "--cache", "cache", *QUICK)
    first = (tmp_path / "checkpoints" / "a.safetensors").read_bytes()
    monkeypatch.setattr("charrnn.data.sources.read_blocks", None)
    train(tmp_path, "a.txt", "--cache", "cache", "--force", *QUICK)
    assert (tmp_path / "checkpoints" / "a.safetensors").read_bytes() == first


def test_a_truncated_cache_stops_the_run_and_keeps_the_model(tmp_path: Path, warm: list[str]) -> None:
    (tmp_path / "a.txt").write_text(CORPUS * (70_000_000 // len(CORPUS)))  # too large to be kept in memory
    settings = (*ENDLESS, "--validation", "0.0001", "--save-every", "0.2")
    with running("train", "a.txt", "--cache", "cache", *settings, program=warm, cwd=tmp_path) as process:
        model = tmp_path / "checkpoints" / "a.safetensors"
        while process.poll() is None and not model.exists():
            time.sleep(0.02)
        os.truncate(next((tmp_path / "cache").glob("*.ids")), 100)
        _, stderr = process.communicate(timeout=60)
    last = stderr.decode().splitlines()[-1]
    assert process.returncode == 1
    assert last.startswith("charrnn: ")
    assert "was changed while it was in use; " in last
    assert checkpoint.load(model).training.best_step > 0


def test_a_text_that_changes_during_training_gets_one_note(charrnn: Charrnn, tmp_path: Path, warm: list[str]) -> None:
    (tmp_path / "a.txt").write_text(CORPUS)
    with running("train", "a.txt", *ENDLESS, "--save-every", "0.2", program=warm, cwd=tmp_path) as process:
        model = tmp_path / "checkpoints" / "a.safetensors"
        while process.poll() is None and not model.exists():
            time.sleep(0.02)
        (tmp_path / "a.txt").write_text("another")
        stderr = b""
        for prefix in (b"note: a.txt has changed", b"step ", b"step "):  # the run is saved again after the note
            while not (line := process.stderr.readline()).startswith(prefix):
                assert line
                stderr += line
            stderr += line
        process.send_signal(signal.SIGINT)
        stderr += process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert stderr.decode().count("note: a.txt has changed since it was read") == 1


def test_training_continues_if_the_cache_does_not_fit_on_the_disk(charrnn: Charrnn, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(CORPUS * 200)
    with file_size_limit(300_000):
        result = charrnn("train", "a.txt", "--cache", "cache", *QUICK)
    assert result.returncode == 0, result.stderr
    assert not list(tmp_path.rglob("*.ids*"))


def test_rare_characters_are_never_generated(charrnn: Charrnn, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(CORPUS + "é" * 3 + "ß" * 2, encoding="utf-8")
    train(tmp_path, "a.txt", "--min-count", "5", *QUICK)
    model = checkpoint.load(tmp_path / "checkpoints" / "a.safetensors")
    assert model.vocabulary.unknown_id is not None
    text = charrnn("sample", "a", "-n", 2000, "--temp", 3, "--seed", 1).stdout.decode()
    assert set(text) <= set(CORPUS)
    assert charrnn("sample", "a", "-p", "né", "--echo", "-n", 3).stdout.decode().startswith("né")
    result = charrnn("eval", "a", "a.txt")
    assert b"are not in the model's vocabulary" in result.stderr
