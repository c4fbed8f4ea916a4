import hashlib
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from charrnn.data import datasets
from charrnn.data.datasets import DATASETS, Generated, Remote
from charrnn.errors import DownloadError, SettingError
from tests.conftest import environment
from tests.loopback import (
    Answer,
    cut,
    cut_chunks,
    dripping,
    endless_chunks,
    free_port,
    garbage,
    hanging_up,
    missing,
    redirecting,
    serving,
    silent,
    stalled,
    whole,
    without_length,
)

CORPORA = Path(__file__).parents[2] / "corpora"
DATA = b"To be, or not to be, that is the question:\n" * 5_000
REMOTE = Remote("play", "one line", "none", "http://nowhere.invalid/", len(DATA), hashlib.sha256(DATA).hexdigest())
HALF = f"the download ended after {len(DATA) // 2:,} of {len(DATA):,} bytes"

all_datasets = pytest.mark.parametrize("entry", DATASETS, ids=lambda entry: entry.name)


@pytest.fixture(autouse=True)
def _without_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")


def download(answer: Answer) -> bytes:
    with serving(answer) as server:
        return b"".join(datasets.download(replace(REMOTE, url=server.url)))


def digest_in_new_process(name: str) -> str:
    """Return the SHA-256 of a corpus made in another process, with another order of sets."""
    code = (
        "import hashlib, sys; from charrnn.data.datasets import find; "
        "print(hashlib.sha256(find(sys.argv[1]).generate().encode()).hexdigest())"
    )
    command = [sys.executable, "-c", code, name]
    result = subprocess.run(command, env=environment(PYTHONHASHSEED="1"), capture_output=True, check=True, timeout=60)
    return result.stdout.decode().strip()


@all_datasets
def test_every_corpus_is_found_by_name(entry: Generated | Remote) -> None:
    assert datasets.find(entry.name) is entry


def test_an_unknown_name_lists_the_available_ones() -> None:
    with pytest.raises(SettingError) as caught:
        datasets.find("nope")
    assert caught.value.reason == "invalid value nope"
    assert all(entry.name in caught.value.advice for entry in DATASETS)


@all_datasets
def test_the_readme_of_the_corpora_describes_each_one(entry: Generated | Remote) -> None:
    readme = (CORPORA / "README.md").read_text(encoding="utf-8")
    (row,) = [line for line in readme.splitlines() if line.startswith(f"| `{entry.name}` |")]
    assert f"| {entry.about} |" in row
    assert f"| {entry.licence} |" in row
    if isinstance(entry, Remote):
        assert f"]({entry.url}) |" in row
        assert f"| {entry.size:,} | `{entry.sha256}` |" in row
    elif entry.name == "hello":
        data = entry.generate().encode()
        assert f"| {len(data):,} | `{hashlib.sha256(data).hexdigest()}` |" in row
    else:
        assert "| differs between Python versions |" in row


def test_hello_equals_the_file_in_the_repository() -> None:
    hello = datasets.find("hello")
    assert isinstance(hello, Generated)
    assert hello.generate().encode() == (CORPORA / "hello.txt").read_bytes()


@pytest.mark.parametrize(("name", "least"), [("python-docs", 400_000), ("python-stdlib", 1_000_000)])
def test_corpora_made_from_python_are_large_and_reproducible(name: str, least: int) -> None:
    entry = datasets.find(name)
    assert isinstance(entry, Generated)
    text = entry.generate()
    assert len(text) > least
    assert len(text.encode("utf-8")) > least  # contains no surrogate
    assert "\r" not in text
    assert digest_in_new_process(name) == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize("answer", [whole(DATA), without_length(DATA)], ids=["with a length", "without"])
def test_a_download_returns_the_file_unchanged(answer: Answer) -> None:
    assert download(answer) == DATA


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (cut(DATA), HALF),
        (without_length(DATA[: len(DATA) // 2]), HALF),
        (cut_chunks(DATA), "the download ended after "),
        (whole(b""), f"the download ended after 0 of {len(DATA):,} bytes"),
        (whole(DATA[:-1] + b"!"), "the file at this address has changed (its SHA-256 differs)"),
        (whole(DATA + b"!"), "the file at this address has changed (its SHA-256 differs)"),
        (missing, "the server answered 404 Not Found"),
        (garbage, "cannot be reached (the answer is not valid HTTP)"),
        (hanging_up, "cannot be reached (remote end closed connection without response)"),
        (endless_chunks, "the file at this address has changed (its SHA-256 differs)"),
        (redirecting("/corpus.txt"), "the server answered 302 The HTTP server returned a redirect error"),
        (redirecting("file:///etc/passwd"), "the server answered 302 Found - Redirection to url 'file:///etc/passwd'"),
        (redirecting("ftp://127.0.0.1/x"), "the server answered 302 and redirects to ftp://127.0.0.1/x"),
    ],
    ids=[
        "cut", "cut, no length", "cut in a chunk", "empty", "changed", "longer", "404", "garbage", "hangs up",
        "endless", "loop", "file", "ftp",
    ],
)  # fmt: skip
def test_a_failed_download_states_the_reason(answer: Answer, reason: str) -> None:
    with pytest.raises(DownloadError) as caught:
        download(answer)
    assert caught.value.reason.startswith(reason)
    assert caught.value.subject.startswith("http://127.0.0.1:")


def test_an_unexpected_error_of_the_receiving_thread_ends_the_download(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(datasets, "TIMEOUT_SECONDS", 1.0)
    monkeypatch.setattr(datasets.urllib.request, "build_opener", fail)
    with pytest.raises(MemoryError):
        list(datasets.download(REMOTE))


def test_an_unreachable_server_is_an_error() -> None:
    with pytest.raises(DownloadError, match=r"cannot be reached \(connection refused\)"):
        list(datasets.download(replace(REMOTE, url=f"http://127.0.0.1:{free_port()}/")))


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (stalled(DATA), f"{HALF} (timed out)"),
        (silent, "cannot be reached (timed out)"),
        (dripping(DATA, header=True), "cannot be reached (timed out)"),
        (dripping(DATA), "the download ended after "),
    ],
    ids=["silent half way", "silent from the start", "byte by byte in a header", "byte by byte"],
)
def test_a_silent_or_slow_server_times_out(answer: Answer, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "TIMEOUT_SECONDS", 0.5)
    with pytest.raises(DownloadError, match=r"\(timed out\)") as caught:
        download(answer)
    assert caught.value.reason.startswith(reason)


def test_a_download_that_is_too_long_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "TIMEOUT_SECONDS", 10.0)  # the answer never ends
    with serving(stalled(DATA * 4)) as server, pytest.raises(DownloadError, match="SHA-256"):
        list(datasets.download(replace(REMOTE, url=server.url)))


def test_blocks_are_yielded_as_they_arrive() -> None:
    with serving(stalled(DATA)) as server:
        blocks = datasets.download(replace(REMOTE, url=server.url))
        received = b""
        while len(received) < len(DATA) // 2:
            received += next(blocks)
        assert received == DATA[: len(DATA) // 2]
        blocks.close()


@pytest.mark.parametrize(("data", "right"), [(DATA, True), (DATA[:-1], False), (DATA[:-1] + b"!", False)])
def test_a_file_is_recognized_by_the_digest(data: bytes, right: bool) -> None:
    assert datasets.matches(REMOTE, data) is right
