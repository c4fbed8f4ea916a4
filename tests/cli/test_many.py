"""Several samples in a pipeline: one prompt per line, one record per sample."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import Charrnn, environment, one_line


def lines_of(result: subprocess.CompletedProcess[bytes]) -> list[str]:
    assert result.returncode == 0, result.stderr.decode()
    return result.stdout.decode().split("\n")


def test_count_is_the_number_of_samples_and_each_ends_with_a_newline(charrnn: Charrnn, tiny_path: Path) -> None:
    result = charrnn("sample", tiny_path, "--count", 5, "--lines", 1, "--seed", 1)
    single = charrnn("sample", tiny_path, "--lines", 1, "--seed", 1)

    lines = lines_of(result)
    assert len(lines) == 6
    assert lines[-1] == ""
    assert lines[0] + "\n" == single.stdout.decode()
    assert len(set(lines[:5])) == 5


@pytest.mark.parametrize(("option", "end"), [(("--separator", "<>"), b"<>"), (("-0",), b"\0"), ((), b"\n")])
def test_a_record_ends_with_the_given_separator(
    charrnn: Charrnn, tiny_path: Path, option: tuple[str, ...], end: bytes
) -> None:
    result = charrnn("sample", tiny_path, "--count", 3, "-n", 9, "--forbid", r"\n", "--seed", 1, *option)

    records = result.stdout.split(end)
    assert [len(record) for record in records] == [9, 9, 9, 0]


def test_every_prompt_is_continued_on_one_line(charrnn: Charrnn, tiny_path: Path) -> None:
    prompts = ["fox", "", "The quick brown", "dog", "x" * 500]
    result = charrnn("sample", tiny_path, "--prompts", "-", "--seed", 3, input="\n".join(prompts).encode())
    single = charrnn("sample", tiny_path, "--prompt", prompts[0], "--lines", 1, "--seed", 3)

    lines = lines_of(result)
    assert len(lines) == len(prompts) + 1
    assert lines[0] + "\n" == single.stdout.decode()


def test_windows_line_endings_are_not_part_of_the_prompt(charrnn: Charrnn, tiny_path: Path, tmp_path: Path) -> None:
    (tmp_path / "dos.txt").write_bytes(b"fox\r\ndog\r\n")
    (tmp_path / "unix.txt").write_bytes(b"fox\ndog\n")
    dos, unix = (charrnn("sample", tiny_path, "--prompts", name, "--seed", 3) for name in ("dos.txt", "unix.txt"))

    assert lines_of(dos) == lines_of(unix)


def test_json_describes_every_sample(charrnn: Charrnn, tiny_path: Path) -> None:
    result = charrnn("sample", tiny_path, "--prompts", "-", "--json", "-n", 30, "--count", 2, input=b"fox\ndog\n")

    records = [json.loads(line) for line in result.stdout.decode().splitlines()]
    assert [(record["number"], record["prompt"]) for record in records] == [
        (0, "fox"),
        (1, "fox"),
        (2, "dog"),
        (3, "dog"),
    ]
    assert all(
        record["stop_reason"] == "length" and record["characters"] == len(record["text"]) == 30 for record in records
    )
    assert all(0 < record["bits_per_char"] < 30 for record in records)
    repeated = charrnn("sample", tiny_path, "--json", "-n", 30, "--prompt", "fox", "--seed", records[0]["seed"])
    assert json.loads(repeated.stdout)["text"] == records[0]["text"]


def test_an_unreadable_prompt_is_reported_and_the_others_are_continued(
    charrnn: Charrnn, tiny_path: Path, tmp_path: Path
) -> None:
    (tmp_path / "prompts.txt").write_bytes(b"fox\nf\xc3\xbcr\nd\xffg\ndog\n")
    result = charrnn("sample", tiny_path, "--prompts", "prompts.txt", "--seed", 3)

    assert result.returncode == 1
    assert result.stderr.decode().splitlines() == [
        "charrnn: prompts.txt, line 2: the model never saw 'ü' (U+00FC LATIN SMALL LETTER U WITH DIAERESIS); "
        "add --unknown skip to leave them out",
        "charrnn: prompts.txt, line 3: is not UTF-8: byte 0xff at offset 1; convert it to UTF-8",
        "charrnn: prompts.txt: 2 prompts could not be continued; see the errors above",
    ]
    lines = result.stdout.split(b"\n")
    assert len(lines) == 5  # one line per prompt, so that `paste` can join the files
    assert lines[1] == lines[2] == b""
    skipped = charrnn("sample", tiny_path, "--prompts", "-", "--unknown", "skip", input="für\n".encode())
    assert skipped.returncode == 0
    assert "line 1: skipped characters that the model never saw: 'ü'" in skipped.stderr.decode()


def test_an_unreadable_prompt_is_reported_once_for_all_samples(charrnn: Charrnn, tiny_path: Path) -> None:
    prompts = b"\xef\xbb\xbffox\nf\xc3\xbcr\n"  # the byte order mark is not part of the prompt
    result = charrnn("sample", tiny_path, "--prompts", "-", "--count", 3, input=prompts)

    assert result.returncode == 1
    errors = result.stderr.decode().splitlines()
    assert [line.split(":")[1] for line in errors] == [" stdin, line 2", " stdin"]
    assert errors[-1] == "charrnn: stdin: 1 prompt could not be continued; see the errors above"
    assert len(result.stdout.split(b"\n")) == 7


def test_a_prompt_is_continued_before_the_next_one_is_read(tiny_path: Path, warm: list[str]) -> None:
    command = [*warm, "sample", str(tiny_path), "--prompts", "-", "-q"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment(), bufsize=0
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for _ in range(3):
            process.stdin.write(b"fox\n")
            assert process.stdout.readline().endswith(b"\n")
        process.stdin.close()
        assert process.wait(30) == 0


def test_kernels_are_compiled_once_with_a_message(charrnn_process: Charrnn, tiny_path: Path, tmp_path: Path) -> None:
    def run_sample() -> subprocess.CompletedProcess[bytes]:
        return charrnn_process(
            "sample",
            tiny_path,
            "-n",
            20_000,
            "--seed",
            1,
            env={"CHARRNN_CACHE": str(tmp_path / "cache"), "XDG_CACHE_HOME": str(tmp_path)},
        )

    first, second = run_sample(), run_sample()
    assert one_line(first) == "charrnn: compiling for this processor; this takes a few seconds, only once\n"
    assert second.stderr == b""
    assert second.stdout == first.stdout


def test_reading_waits_for_an_empty_nonblocking_pipe(tiny_path: Path, warm: list[str]) -> None:
    command = [*warm, "sample", str(tiny_path), "--prompts", "-", "-q"]
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    with subprocess.Popen(command, stdin=reader, stdout=subprocess.PIPE, env=environment(), bufsize=0) as process:
        os.close(reader)
        assert process.stdout is not None
        for _ in range(2):
            time.sleep(0.3)  # so that the pipe is empty
            os.write(writer, b"fox\n")
            assert process.stdout.readline().endswith(b"\n")
        os.close(writer)
        assert process.wait(30) == 0


def test_memory_does_not_grow_with_the_number_of_prompts(tiny_path: Path) -> None:
    pytest.importorskip("resource")
    command = f"yes fox | {sys.executable} -m charrnn sample {tiny_path} --prompts - -n 3 | head -n %d | wc -l"
    program = "import resource, subprocess, sys; print(subprocess.run(sys.argv[1], shell=True, capture_output=True)"
    program += ".stdout.decode().strip(), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    few, many = (
        subprocess.run(
            [sys.executable, "-c", program, command % lines], capture_output=True, env=environment(), check=True
        ).stdout.split()
        for lines in (1000, 10_000)
    )
    assert (few[0], many[0]) == (b"1000", b"10000")
    assert int(many[1]) < int(few[1]) * 1.4


@pytest.mark.parametrize("name", ["INT", "TERM"])
def test_a_signal_ends_the_wait_for_prompts(tiny_path: Path, name: str, warm: list[str]) -> None:
    command = [*warm, "sample", str(tiny_path), "--prompts", "-", "-q"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(), bufsize=0
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write(b"fox\n")
        process.stdout.readline()
        time.sleep(0.2)
        process.send_signal(getattr(__import__("signal"), f"SIG{name}"))
        assert process.wait(30) == {"INT": 130, "TERM": 143}[name]
        assert process.stderr.read() == b""


def test_a_pipe_that_is_closed_early_is_no_failure(tiny_path: Path) -> None:
    command = f"{sys.executable} -m charrnn sample {tiny_path} --count 3000 -n 50 -0 -q | head -c 100 | wc -c"
    result = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], capture_output=True, env=environment(), timeout=120, check=False
    )
    assert (result.returncode, result.stdout.strip(), result.stderr) == (0, b"100", b"")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_a_full_disk_is_a_one_line_error(charrnn: Charrnn, tiny_path: Path) -> None:
    with open("/dev/full", "wb") as full:
        result = charrnn("sample", tiny_path, "--count", 3, "-n", 9, stdout=full)

    assert result.returncode == 1
    assert one_line(result).startswith("charrnn: stdout: cannot be written (no space left on device)")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--count 0", "--count: invalid value 0; give an integer, 1 or more"),
        ("--prompts - --prompt x", "--prompts: cannot be combined with --prompt; give one of them"),
        ("--count 2 -0 --separator x", "--separator: cannot be combined with -0; give one of them"),
        ("--separator x", "--separator: given for a single sample; add --count or --prompts, or leave it out"),
        ("-0", "--null: given for a single sample; add --count or --prompts, or leave it out"),
        ("--count 2 -n 0", "--length: 0 cannot be combined with --count, --prompts or --json; give 1 or more"),
        ("--temp 1:2:3", "--temp: invalid value 1:2:3; give a number such as 0.8, or two such as 0.6:1.1"),
        ("--temp 1:nan", "--temp: invalid value nan; give a finite number, 0 (greedy) or more"),
        (
            "--temp 1:2 -n 0",
            "--temp: a range cannot be combined with --length 0; give one temperature or limit the length",
        ),
        (
            "--allow z-a",
            "--allow: invalid value z-a (bad character range z-a); give a set of characters such as 'a-z \\n'",
        ),
        ("--repeat-penalty 0", "--repeat-penalty: invalid value 0.0; give a number above 0, at most 100"),
        ("--lines -1", "--lines: invalid value -1; give an integer, 0 or more"),
    ],
)  # fmt: skip
def test_invalid_options_are_rejected_before_the_model_is_loaded(
    charrnn: Charrnn, options: str, message: str
) -> None:
    result = charrnn("sample", "nothing.safetensors", *options.split(), input=b"")

    assert result.returncode == 2
    assert one_line(result) == f"charrnn: {message}\n"


def test_filters_that_leave_no_character_are_rejected(charrnn: Charrnn, tiny_path: Path) -> None:
    result = charrnn("sample", tiny_path, "--allow", "é")

    assert result.returncode == 2
    assert one_line(result).startswith("charrnn: --allow: leaves no character of the vocabulary ('é'); ")


def test_a_stop_string_that_cannot_occur_gets_a_note(charrnn: Charrnn, tiny_path: Path) -> None:
    result = charrnn("sample", tiny_path, "--stop", "é", "-n", 5)

    assert (result.returncode, len(result.stdout)) == (0, 5)
    assert "--stop: the model never generates 'é' (U+00E9" in one_line(result)


def test_a_missing_file_of_prompts_is_a_one_line_error(charrnn: Charrnn, tiny_path: Path) -> None:
    result = charrnn("sample", tiny_path, "--prompts", "nothing.txt")

    assert result.returncode == 1
    assert one_line(result) == "charrnn: nothing.txt: no such file or directory; check the path\n"
