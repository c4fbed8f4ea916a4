"""`score` and `classify` as a shell sees them."""

import gzip
import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

import charrnn as library
from charrnn import checkpoint
from charrnn.cli import line_scoring
from charrnn.cli.classify import _format_line
from charrnn.evaluation.line_scores import LineScore
from tests.cli.conftest import WIDE, running
from tests.conftest import TEXT, Charrnn, make_checkpoint, one_line

LINES = ["The quick brown fox", "", "jumps over", "zzzzzzzzzz", "the lazy dog."]
INPUT = "".join(line + "\n" for line in LINES).encode()
QUICK = {
    "hidden": 16,
    "layers": 1,
    "steps": 150,
    "validation": 0,
    "threads": 1,
    "precision": "fp32",
    "engine": "torch",
}


def table(result: subprocess.CompletedProcess[bytes]) -> list[tuple[float, str]]:
    assert result.returncode == 0, result.stderr
    rows = [line.partition("\t") for line in result.stdout.decode().splitlines()]
    return [(float(value), line) for value, _, line in rows]


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model that knows one order of letters, and one that knows the other."""
    folder = tmp_path_factory.mktemp("classes")
    for name, text in (("up", "abcdefg\n" * 150), ("down", "gfedcba\n" * 150)):
        library.train(text, **QUICK).save(folder / f"{name}.safetensors")
    return folder


def test_every_line_comes_back_with_its_score(charrnn: Charrnn, classes: Path) -> None:
    known, odd = "abcdefg", "aaccgge"
    rows = table(charrnn("score", classes / "up.safetensors", input=f"{known}\n\n{odd}\n{known}".encode()))
    assert [line for _, line in rows] == [known, "", odd, known]
    assert rows[0][0] < 1 < rows[2][0]
    assert rows[0] == rows[3]


def test_scores_in_other_measures_are_the_same_scores(charrnn: Charrnn, tiny_path: Path, tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_bytes(INPUT)
    plain, total, nats = (
        table(charrnn("score", tiny_path, "lines.txt", *options)) for options in ((), ("--total",), ("--nats",))
    )
    records = [
        json.loads(line)
        for line in charrnn("score", tiny_path, "-", "--json", "--chars", input=INPUT).stdout.splitlines()
    ]
    for number, line in enumerate(LINES):
        size, record = len(line) + 1, records[number]
        assert total[number][0] == pytest.approx(plain[number][0] * size, abs=1e-3 * size)
        assert nats[number][0] == pytest.approx(plain[number][0] * 0.693147, abs=1e-4)
        assert (record["line"], record["text"], record["characters"]) == (number + 1, line, size)
        assert record["bits_per_char"] == pytest.approx(plain[number][0], abs=1e-4)
        assert "".join(symbol for symbol, _ in record["chars"]) == line + "\n"
        assert sum(bits for _, bits in record["chars"]) == pytest.approx(record["bits"], abs=1e-4)


def test_the_strangest_lines_can_be_had_alone_or_first(charrnn: Charrnn, tiny_path: Path) -> None:
    rows = table(charrnn("score", tiny_path, input=INPUT))
    ranked = sorted(rows, key=lambda row: -row[0])
    assert table(charrnn("score", tiny_path, "--sort", input=INPUT)) == ranked
    assert table(charrnn("score", tiny_path, "--top", 2, input=INPUT)) == ranked[:2]
    middle = ranked[2][0] - 1e-4
    assert table(charrnn("score", tiny_path, "--threshold", middle, input=INPUT)) == [
        row for row in rows if row[0] >= middle
    ]


def test_carried_on_the_lines_add_up_to_what_eval_says(charrnn: Charrnn, tiny_path: Path) -> None:
    rows = table(charrnn("score", tiny_path, "--total", "--carry", input=INPUT))
    figure = json.loads(charrnn("eval", tiny_path, "-", "--json", input=INPUT).stdout)
    assert sum(value for value, _ in rows) / figure["characters"] == pytest.approx(figure["bits_per_char"], abs=1e-4)
    assert rows != table(charrnn("score", tiny_path, "--total", input=INPUT))


@pytest.mark.parametrize(
    "command",
    [
        ("score", "tiny.safetensors"), ("score", "tiny.safetensors", "--encoding", "cp1251"),
        ("classify", "-m", "tiny", "-m", "wide"),
    ],
)  # fmt: skip
def test_lines_come_as_they_are_written(
    command: tuple[str, ...], tiny_path: Path, wide_path: Path, warm: list[str]
) -> None:
    (tiny_path.parent / "checkpoints").mkdir()
    for path in (tiny_path, wide_path):
        (tiny_path.parent / "checkpoints" / path.name).write_bytes(path.read_bytes())
    with running(*command, program=warm, cwd=tiny_path.parent, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for line in (b"a\n", b"lazy dog\n", b"\n"):
            process.stdin.write(line)
            process.stdin.flush()
            assert process.stdout.readline().partition(b"\t")[2] == line
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        assert process.stdout.read() == b""


def test_a_reader_that_has_enough_ends_it_in_silence(tiny_path: Path, warm: list[str]) -> None:
    with running("score", tiny_path, program=warm, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write(b"one\n")
        process.stdin.flush()
        assert process.stdout.readline()
        process.stdout.close()
        process.stdin.write(b"two\n")
        process.stdin.flush()
        assert process.wait(30) == 0
        assert process.stderr.read() == b""


def test_bytes_that_are_no_text_are_told_and_the_rest_is_scored(charrnn: Charrnn, tiny_path: Path) -> None:
    good = table(charrnn("score", tiny_path, input=b"dog\n"))[0][0]
    result = charrnn("score", tiny_path, input=b"dog\ndo\xffg\ndog\n")
    assert result.returncode == 0
    first, wrong, last = result.stdout.split(b"\n")[:3]
    assert first == last == b"%.4f\tdog" % good
    assert wrong.endswith(b"\tdo\xffg")
    assert "stdin, line 2: byte 0xff is not UTF-8; scored as an unknown character" in one_line(result)
    many = charrnn("score", tiny_path, "--json", "--encoding", "utf-8", input=b"\xff\n" * 100)
    told = many.stderr.decode().splitlines()
    assert len(told) == line_scoring.MAX_WARNINGS + 1
    assert told[-2].endswith("; further warnings are only counted")
    assert told[-1] == f"charrnn: stdin: {100 - line_scoring.MAX_WARNINGS} more lines with such problems"
    record = json.loads(many.stdout.splitlines()[7])
    assert (record["base64"], record["characters"], record["unknown"]) == ("/w==", 2, 1)
    assert "0xff" in record["error"]


def test_what_a_packed_file_lacks_is_told_after_all_lines_that_it_has(
    charrnn: Charrnn, tiny_path: Path, tmp_path: Path
) -> None:
    lines = b"".join(b"dog %d\n" % number for number in range(3000))
    packed = gzip.compress(lines)
    (tmp_path / "cut.gz").write_bytes(packed[: len(packed) // 2])
    result = charrnn("score", tiny_path, "cut.gz", "-q")
    assert result.returncode == 1
    assert "is damaged gzip" in one_line(result)
    assert len(result.stdout.splitlines()) > 300


@pytest.mark.parametrize(
    ("encoding", "data"), [("cp1251", b"dog\x98\ndog\n"), ("unicode_escape", b"dog\\xzz\ndog\n")]
)
def test_what_is_not_in_the_encoding_is_a_character_that_nobody_knows(
    encoding: str, data: bytes, charrnn: Charrnn, tiny_path: Path
) -> None:
    result = charrnn("score", tiny_path, "--encoding", encoding, "--json", input=data)
    assert result.returncode == 0
    first, second = (json.loads(line) for line in result.stdout.splitlines())
    assert (first["unknown"] > 0, second["unknown"]) == (True, 0)


def test_a_model_of_bytes_gets_all_bytes(charrnn: Charrnn, tmp_path: Path) -> None:
    library.train("one\ntwo\n" * 9, unit="byte", **QUICK | {"steps": 1}).save(tmp_path / "byte.safetensors")
    for data in ("\ufeffone\ntwo\n".encode(), "one\ntwo\n".encode("utf-16"), b"\x80\xff\r\n"):
        figure = json.loads(charrnn("eval", "byte.safetensors", "-", "--json", input=data).stdout)
        rows = charrnn("score", "byte.safetensors", "--total", "--carry", "--nats", "--json", input=data).stdout
        records = [json.loads(row) for row in rows.splitlines()]
        assert sum(one["characters"] for one in records) == len(data) - 1 == figure["characters"]
        assert sum(one["nats"] for one in records) / (len(data) - 1) == pytest.approx(figure["nats"], abs=1e-5)
    assert "--encoding: applies to characters only" in one_line(
        charrnn("score", "byte.safetensors", "--encoding", "cp1251")
    )


def test_a_line_without_an_end_is_scored_whole_and_printed_in_part(charrnn: Charrnn, tiny_path: Path) -> None:
    line = b"dog " * (line_scoring.MAX_PRINTED_BYTES // 4 + 100_000)
    result = charrnn("score", tiny_path, "--json", input=b"dog\n" + line + b"\ndog")
    first, long, last = (json.loads(row) for row in result.stdout.splitlines())
    assert long["characters"] == len(line) + 1
    assert line_scoring.MAX_PRINTED_BYTES <= len(long["text"]) < len(line)
    assert first["bits"] == last["bits"]
    assert "line 2: is very long" in one_line(result)


def test_of_nothing_nothing_comes(charrnn: Charrnn, tiny_path: Path) -> None:
    for options in ((), ("--sort",), ("--top", 3), ("--json",)):
        result = charrnn("score", tiny_path, *options)
        assert (result.returncode, result.stdout, result.stderr) == (0, b"", b"")


def test_a_line_gets_the_label_of_the_model_that_expects_it(charrnn: Charrnn, classes: Path) -> None:
    models = ("-m", classes / "up.safetensors", "-m", str(classes / "down.safetensors"))
    lines = b"abcdefg\ngfedcba\nbcdef\n\nfedcb\n"
    result = charrnn("classify", *models, input=lines)
    labels = [line.split(b"\t") for line in result.stdout.splitlines()]
    assert [line for _, line in labels] == lines.splitlines()
    assert [label for label, line in labels if line] == [b"up", b"down", b"up", b"down"]
    records = [json.loads(line) for line in charrnn("classify", *models, "--json", input=lines).stdout.splitlines()]
    for record, (label, line) in zip(records, labels, strict=True):
        assert (record["label"], record["text"]) == (label.decode(), line.decode())
        costs = sorted(record["bits"].values())
        assert record["margin_bits"] == pytest.approx(costs[1] - costs[0], abs=1e-5)
        assert record["bits"][record["label"]] == costs[0]
    assert set(records[0]["bits"]) == {"up", "down"}


def test_lines_are_told_apart_by_what_they_cost_as_a_whole() -> None:
    """A model of bytes has more symbols to predict than one of characters, each of which may cost less."""
    costs = {
        "characters": LineScore(1, b"x", num_predictions=2, nats=10),
        "bytes": LineScore(1, b"x", num_predictions=10, nats=12),
    }
    assert _format_line(costs, as_json=False) == b"characters\tx\n"


def test_what_a_model_never_saw_speaks_against_it(charrnn: Charrnn, tiny_path: Path, wide_path: Path) -> None:
    result = charrnn("classify", "-m", tiny_path, "-m", wide_path, "--json", input="йцуй\ndog\n".encode())
    wide, tiny = (json.loads(line) for line in result.stdout.splitlines())
    assert (wide["label"], wide["unknown"]) == ("wide", {"tiny": 4, "wide": 0})
    assert (tiny["label"], tiny["unknown"]) == ("tiny", {"tiny": 0, "wide": 3})
    assert wide["bits"]["tiny"] > 4 * 20.08


def test_bytes_that_are_no_text_speak_against_a_model_of_characters(
    charrnn: Charrnn, tiny_path: Path, tmp_path: Path
) -> None:
    library.train(TEXT * 3, unit="byte", **QUICK | {"steps": 1}).save(tmp_path / "byte.safetensors")
    result = charrnn("classify", "-m", "byte.safetensors", "-m", tiny_path, "--json", input=b"fox\xff\xfe\xfd\n")
    record = json.loads(result.stdout)
    assert record["unknown"] == {"byte": 0, "tiny": 3}
    assert record["bits"]["tiny"] > 3 * 20
    assert "line 1: byte 0xff is not UTF-8" in one_line(result)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("score", "tiny.safetensors", "none.txt"), 1, "none.txt: no such file"),
        (("score", "none"), 1, "none: no such file"),
        (("score", "tiny.safetensors", "--chars"), 2, "--chars: given without --json; add --json"),
        (("score", "tiny.safetensors", "--top", "0"), 2, "--top: invalid value 0"),
        (("score", "tiny.safetensors", "--top", "2", "--sort"), 2, "--sort: cannot be combined with --top"),
        (("score", "tiny.safetensors", "--encoding", "klingon"), 2, "--encoding: invalid value klingon"),
        (
            ("score", "lines.safetensors", "--carry"),
            2,
            "--carry: this model reads each line as a separate document",
        ),
        (("classify", "-m", "tiny.safetensors"), 2, "--model: given only once"),
        (("classify", "-m", "tiny.safetensors", "-m", "./tiny.safetensors"), 2, "--model: given twice"),
        (("classify", "-m", "tiny.safetensors", "-m", "none"), 1, "none: no such file"),
    ],
)
def test_what_cannot_be_is_one_line(
    arguments: tuple[str, ...], code: int, message: str, charrnn: Charrnn, tiny_path: Path
) -> None:
    if "lines.safetensors" in arguments:
        library.train("one\ntwo\n" * 9, documents="lines", **QUICK | {"steps": 1}).save(
            tiny_path.parent / "lines.safetensors"
        )
    result = charrnn(*arguments, input=b"dog\n")
    assert result.returncode == code
    assert message in one_line(result)
    assert result.stdout == b""


def test_a_closed_stdin_is_told(charrnn_process: Charrnn, tiny_path: Path) -> None:
    result = charrnn_process("score", tiny_path, preexec_fn=lambda: os.close(0), stdin=None)
    assert result.returncode == 1
    assert "stdin is closed" in one_line(result)


def test_lines_in_other_encodings_are_read(charrnn: Charrnn, tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "wide.safetensors", make_checkpoint(text=WIDE))
    want = table(charrnn("score", "wide.safetensors", input="йцу\n".encode()))
    assert table(charrnn("score", "wide.safetensors", "--encoding", "cp1251", input="йцу\n".encode("cp1251"))) == want
    assert table(charrnn("score", "wide.safetensors", input="йцу\n".encode("utf-16"))) == want
