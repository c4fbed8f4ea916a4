"""``charrnn corpus``: `list`, `get` and `check`."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest

from charrnn.data import datasets
from charrnn.data.datasets import DATASETS, Remote
from tests.conftest import Charrnn, environment, one_line
from tests.loopback import Answer, cut, free_port, garbage, missing, serving, stalled, whole, without_length

DATA = b"To be, or not to be: that is the question.\n" * 200
PLAY = Remote("play", "one line", "none", "http://nowhere.invalid/", len(DATA), hashlib.sha256(DATA).hexdigest())

GET_PLAY = """
import signal, sys
from charrnn.cli.app import main
from charrnn.data import datasets

signal.signal(signal.SIGINT, signal.default_int_handler)  # the parent may ignore it
url, size, sha256 = sys.argv[1:]
datasets.DATASETS = (datasets.Remote("play", "one line", "none", url, int(size), sha256),)
sys.exit(main(["corpus", "get", "play"]))
"""


class Result(NamedTuple):
    """The exit code and the output of a command."""

    code: int
    out: str
    err: str


Run = Callable[..., Result]


@pytest.fixture
def run(charrnn: Charrnn) -> Run:
    """A function that runs ``charrnn corpus ARGUMENTS`` in ``tmp_path``, without a proxy."""

    def run(*arguments: str) -> Result:
        result = charrnn("corpus", *arguments, env={"no_proxy": "*"})
        return Result(result.returncode, result.stdout.decode(), result.stderr.decode())

    return run


@pytest.fixture
def offer(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """A function that makes ``play``, with the given URL, the only corpus."""
    return lambda url: monkeypatch.setattr(datasets, "DATASETS", (replace(PLAY, url=url),))


Offer = Callable[[str], None]


def get_play(url: str, directory: Path, **env: str) -> "subprocess.Popen[bytes]":
    """Start ``charrnn corpus get play`` as a separate process, with ``play`` at ``url``."""
    command = [sys.executable, "-c", GET_PLAY, url, str(PLAY.size), PLAY.sha256]
    return subprocess.Popen(
        command, cwd=directory, env=environment(**env), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def files_in(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def assert_one_line(result: Result, *parts: str, code: int = 1) -> None:
    """Check that the command failed with a one-line error that contains ``parts``, and with an empty stdout."""
    assert (result.code, result.out) == (code, "")
    assert result.err.startswith("charrnn: ")
    assert result.err.count("\n") == 1
    assert result.err.endswith("\n")
    assert result.err.rstrip("\n").isprintable()
    for part in parts:
        assert part in result.err


# --- list


def test_list_shows_one_corpus_per_line(run: Run) -> None:
    result = run("list")
    assert (result.code, result.err) == (0, "")
    assert [line.split()[0] for line in result.out.splitlines()] == [entry.name for entry in DATASETS]
    for line, entry in zip(result.out.splitlines(), DATASETS, strict=True):
        assert entry.about in line
        assert f"({entry.licence})" in line


def test_list_shows_the_size_of_downloads(run: Run) -> None:
    lines = {line.split()[0]: line for line in run("list").out.splitlines()}
    assert "1,115,394 bytes" in lines["tiny-shakespeare"]
    assert "generated locally" in lines["python-docs"]


def test_list_as_json_describes_every_corpus(run: Run) -> None:
    result = run("list", "--json")
    assert result.out.count("\n") == 1
    entries = json.loads(result.out)
    assert [entry["name"] for entry in entries] == [entry.name for entry in DATASETS]
    assert {entry["name"]: entry["bytes"] for entry in entries}["names"] == 228_145
    assert {entry["name"]: entry["url"] for entry in entries}["hello"] is None


# --- get, generated corpora


@pytest.mark.parametrize("name", ["hello", "python-docs", "python-stdlib"])
def test_get_generates_a_corpus_offline_and_prints_the_path(
    name: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(*arguments: object, **options: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr("socket.socket.connect", no_network)
    assert run("get", name) == (0, f"{Path('corpora', name)}.txt\n", "")
    (entry,) = [entry for entry in DATASETS if entry.name == name]
    assert not isinstance(entry, Remote)
    assert files_in(tmp_path) == {os.path.join("corpora", f"{name}.txt"): entry.generate().encode()}


def test_an_existing_corpus_is_not_written_again(run: Run, tmp_path: Path) -> None:
    run("get", "hello")
    before = (tmp_path / "corpora" / "hello.txt").stat()
    assert run("get", "hello", "--force").out == f"{Path('corpora/hello.txt')}\n"
    after = (tmp_path / "corpora" / "hello.txt").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_get_of_an_unknown_name_is_wrong_usage_and_lists_the_names(run: Run, tmp_path: Path) -> None:
    result = run("get", "nope")
    assert_one_line(result, "invalid value nope; give one of hello, ", "see charrnn corpus get --help", code=2)
    assert "--corpus" not in result.err  # there is no such option
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", [["get"], ["check"], ["nope"], ["get", "hello", "--nope"]])
def test_wrong_usage_is_a_one_line_error(command: list[str], run: Run) -> None:
    assert_one_line(run(*command), "--help", code=2)


# --- get, downloads


@pytest.mark.parametrize("answer", [whole(DATA), without_length(DATA)], ids=["with a length", "without"])
def test_get_downloads_a_corpus_and_prints_the_path(answer: Answer, run: Run, offer: Offer, tmp_path: Path) -> None:
    with serving(answer) as server:
        offer(server.url)
        assert run("get", "play") == (0, f"{Path('corpora/play.txt')}\n", "")
    assert files_in(tmp_path) == {os.path.join("corpora", "play.txt"): DATA}


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (cut(DATA), "the download ended after 4,300 of 8,600 bytes"),
        (without_length(DATA[:1000]), "the download ended after 1,000 of 8,600 bytes"),
        (whole(DATA.lower()), "SHA-256 differs"),
        (whole(DATA * 2), "SHA-256 differs"),
        (missing, "the server answered 404 Not Found"),
        (garbage, "the answer is not valid HTTP"),
    ],
    ids=["cut", "cut, no length", "wrong hash", "too much", "404", "garbage"],
)
def test_a_failed_download_is_a_one_line_error_and_leaves_no_files(
    answer: Answer, reason: str, run: Run, offer: Offer, tmp_path: Path
) -> None:
    with serving(answer) as server:
        offer(server.url)
        assert_one_line(run("get", "play"), f"charrnn: {server.url}: ", reason)
    assert files_in(tmp_path) == {}


def test_a_stalled_server_is_a_one_line_error_and_leaves_no_files(
    run: Run, offer: Offer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets, "TIMEOUT_SECONDS", 0.5)
    with serving(stalled(DATA)) as server:
        offer(server.url)
        assert_one_line(run("get", "play"), "(timed out)", "check the connection")
    assert files_in(tmp_path) == {}


def test_an_unreachable_server_is_a_one_line_error_and_leaves_no_files(
    run: Run, offer: Offer, tmp_path: Path
) -> None:
    offer(f"http://127.0.0.1:{free_port()}/play.txt")
    assert_one_line(run("get", "play"), "cannot be reached (connection refused)", "check the connection")
    assert files_in(tmp_path) == {}


def test_an_intact_file_is_not_downloaded_again(run: Run, offer: Offer, tmp_path: Path) -> None:
    with serving(whole(DATA)) as server:
        offer(server.url)
        first, second = run("get", "play"), run("get", "play")
        assert server.paths == ["/corpus.txt"]
    assert first == second
    assert files_in(tmp_path) == {os.path.join("corpora", "play.txt"): DATA}


def test_a_file_with_another_text_is_not_replaced(run: Run, offer: Offer, tmp_path: Path) -> None:
    (tmp_path / "corpora").mkdir()
    (tmp_path / "corpora" / "play.txt").write_text("my own notes")
    with serving(whole(DATA)) as server:
        offer(server.url)
        result = run("get", "play")
        assert server.paths == []
    assert_one_line(result, f"{Path('corpora/play.txt')}: exists already, with another text than play", "--force")
    assert files_in(tmp_path) == {os.path.join("corpora", "play.txt"): b"my own notes"}


def test_force_replaces_a_file_with_another_text(run: Run, offer: Offer, tmp_path: Path) -> None:
    (tmp_path / "corpora").mkdir()
    (tmp_path / "corpora" / "play.txt").write_text("my own notes")
    with serving(whole(DATA)) as server:
        offer(server.url)
        assert run("get", "play", "--force").code == 0
    assert files_in(tmp_path) == {os.path.join("corpora", "play.txt"): DATA}


def test_force_keeps_the_file_if_the_download_fails(run: Run, offer: Offer, tmp_path: Path) -> None:
    (tmp_path / "corpora").mkdir()
    (tmp_path / "corpora" / "play.txt").write_text("my own notes")
    with serving(cut(DATA)) as server:
        offer(server.url)
        assert run("get", "play", "--force").code == 1
    assert files_in(tmp_path) == {os.path.join("corpora", "play.txt"): b"my own notes"}


def test_a_file_with_the_name_of_the_directory_is_reported_before_the_download(
    run: Run, offer: Offer, tmp_path: Path
) -> None:
    (tmp_path / "corpora").write_text("not a folder")
    with serving(whole(DATA)) as server:
        offer(server.url)
        result = run("get", "play")
        assert server.paths == []
    assert_one_line(result, "cannot be written (not a directory)")
    assert "-o" not in result.err  # `get` has no -o
    assert files_in(tmp_path) == {"corpora": b"not a folder"}


@pytest.mark.parametrize("force", [[], ["--force"]])
def test_a_directory_with_the_name_of_the_file_is_kept(force: list[str], run: Run, tmp_path: Path) -> None:
    (tmp_path / "corpora" / "hello.txt").mkdir(parents=True)
    assert_one_line(run("get", "hello", *force), str(Path("corpora/hello.txt")))
    assert (tmp_path / "corpora" / "hello.txt").is_dir()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_download_gives_no_message_and_leaves_no_files(
    number: signal.Signals, code: int, tmp_path: Path
) -> None:
    with serving(stalled(DATA)) as server, get_play(server.url, tmp_path, no_proxy="*") as process:
        assert server.asked.wait(timeout=60)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (code, b"", b"")
    assert files_in(tmp_path) == {}


def test_a_proxy_in_the_environment_is_used(tmp_path: Path) -> None:
    url = "http://corpora.invalid/play.txt"
    with serving(whole(DATA)) as server:
        proxy = f"http://127.0.0.1:{server.server_port}"
        with get_play(url, tmp_path, http_proxy=proxy, no_proxy="", NO_PROXY="") as process:
            out, err = process.communicate(timeout=60)
        assert server.paths == [url]
    assert (process.returncode, out, err) == (0, f"{Path('corpora/play.txt')}\n".encode(), b"")


def test_an_invalid_proxy_address_is_a_one_line_error(tmp_path: Path) -> None:
    with get_play("http://corpora.invalid/", tmp_path, http_proxy="http:/x", no_proxy="", NO_PROXY="") as process:
        out, err = process.communicate(timeout=60)
    assert_one_line(Result(process.returncode, out.decode(), err.decode()), "cannot be reached (proxy")
    assert files_in(tmp_path) == {}


# --- check


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (
            "ab\n" * 20,
            ["encoding      ASCII, a subset of UTF-8", "line endings  20 LF", "characters    60, 3 distinct"],
        ),
        ("ab\r\n" * 20, ["line endings  20 CRLF (converted to LF)", "characters    60, 3 distinct"]),
        ("ab\r" * 5 + "ab\n" * 6, ["line endings  6 LF, 5 CR (converted to LF)"]),
        ("ab" * 1000, ["line endings  none", "characters    2,000, 2 distinct"]),
        ("\ufeffab", ["encoding      UTF-8 with a byte order mark, all bytes valid", "characters    2, 2 distinct"]),
    ],
    ids=["LF", "CRLF", "CR and LF", "none", "byte order mark"],
)
def test_check_shows_the_encoding_line_endings_and_characters(
    data: str, lines: list[str], run: Run, tmp_path: Path
) -> None:
    (tmp_path / "text.txt").write_bytes(data.encode())
    result = run("check", "text.txt")
    assert (result.code, result.err) == (0, "")
    assert set(lines) <= set(result.out.splitlines())


def test_check_shows_the_rarest_characters_first(run: Run, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("a" * 10 + "bb" + "é" + "\x1b" * 9, encoding="utf-8")
    lines = run("check", "text.txt").out.splitlines()
    start = lines.index("rare          3 occur fewer than 10 times")
    assert [line.strip() for line in lines[start + 1 : start + 4]] == [
        "1 x 'é' (U+00E9 LATIN SMALL LETTER E WITH ACUTE)",
        "2 x 'b' (U+0062 LATIN SMALL LETTER B)",
        "9 x U+001B",
    ]


def test_check_shows_twelve_rare_characters_and_counts_the_others(run: Run, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("abcdefghijklmnop")
    out = run("check", "text.txt").out
    assert "16 occur fewer than 10 times" in out
    assert out.count("LATIN SMALL LETTER") == 12
    assert "and 4 more" in out


def test_check_shows_the_plan_of_train(run: Run, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("To be, or not to be.\n" * 5000)
    (plan,) = [line for line in run("check", "text.txt").out.splitlines() if line.startswith("plan ")]
    assert "LSTM" in plan
    assert "epochs" in plan
    assert "auto" not in plan  # every setting is chosen


def test_check_shows_the_notes_of_the_plan(run: Run, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("hello\n" * 10)
    assert "note          6 characters are too few for a validation text" in run("check", "text.txt").out


def test_check_as_json_is_one_object(run: Run, tmp_path: Path) -> None:
    text = "ab\r\n" * 20 + 'é"\1'
    (tmp_path / "text.txt").write_bytes(text.encode())
    result = run("check", "text.txt", "--json")
    assert (result.code, result.err, result.out.count("\n")) == (0, "", 1)
    facts = json.loads(result.out)
    assert facts["files"] == ["text.txt"]
    assert facts["encoding"] == "UTF-8, all bytes valid"
    assert facts["line_endings"] == {"LF": 0, "CRLF": 20, "CR": 0}
    assert (facts["characters"], facts["distinct_characters"]) == (63, 6)
    assert facts["rare"] == {"\1": 1, '"': 1, "é": 1}
    assert facts["sha256"] == hashlib.sha256(text.replace("\r\n", "\n").encode()).hexdigest()
    assert "LSTM" in facts["plan"]
    assert len(facts["notes"]) == 1


def test_check_reads_several_files_and_directories_as_one_text(run: Run, tmp_path: Path) -> None:
    (tmp_path / "poems").mkdir()
    for name in ("poems/b.txt", "poems/a.txt", "z.txt"):
        (tmp_path / name).write_text("abc")
    facts = json.loads(run("check", "z.txt", "poems", "--json").out)
    assert facts["files"] == ["z.txt", str(Path("poems/a.txt")), str(Path("poems/b.txt"))]
    assert facts["characters"] == 9


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (None, "text.txt: no such file or directory; check the path"),
        (b"", "text.txt: is empty; "),
        (b"a", "text.txt: contains fewer than two characters"),
        (
            b"\x7fELF\x02\x01\0\0\xff",
            "text.txt: contains a NUL byte at line 1, column 7 (byte 6); give a text file",
        ),
        (
            ("Мама мыла раму. " * 9).encode("cp1251"),
            "byte 0xcc at line 1, column 1 (byte 0); add --encoding cp1251, the most likely one",
        ),
    ],
    ids=["missing", "empty", "a single character", "binary", "cp1251"],
)
def test_check_of_an_unusable_text_is_a_one_line_error(
    data: bytes | None, reason: str, run: Run, tmp_path: Path
) -> None:
    if data is not None:
        (tmp_path / "text.txt").write_bytes(data)
    assert_one_line(run("check", "text.txt"), reason)


def test_check_writes_no_files(run: Run, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("hello\n" * 10)
    run("check", "text.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["text.txt"]


def test_check_reads_stdin(charrnn_process: Charrnn) -> None:
    result = charrnn_process("corpus", "check", "-", "--json", input="naïve\r\n".encode() * 20, env={"LC_ALL": "C"})
    assert (result.returncode, result.stderr) == (0, b"")
    facts = json.loads(result.stdout)
    assert facts["files"] == ["-"]
    assert facts["characters"] == 120


def test_check_of_an_empty_stdin_is_a_one_line_error(charrnn: Charrnn) -> None:
    result = charrnn("corpus", "check", "-", input=b"")
    assert (result.returncode, result.stdout) == (1, b"")
    assert one_line(result) == "charrnn: -: is empty; give a file with text in it\n"


@pytest.mark.parametrize("arguments", [["check", "text.txt"], ["list"], ["get", "hello"]])
def test_no_command_imports_torch(arguments: list[str], without_torch: Charrnn, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("hello\n" * 10)
    assert without_torch("corpus", *arguments).returncode == 0
