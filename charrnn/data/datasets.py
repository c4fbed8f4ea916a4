"""Named corpora, with source and licence.

Some are generated locally. The others are downloaded, and checked against their size and SHA-256. No other module
opens a network connection.
"""

import hashlib
import http.client
import queue
import sysconfig
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from charrnn.errors import DownloadError, SettingError
from charrnn.suggestions import did_you_mean

CORPUS_DIR = Path("corpora")  # where corpora are saved
TIMEOUT_SECONDS = 30.0  # maximum time until the first byte, and of each read
MIN_SPEED = 1000  # bytes per second on average, not counting the first TIMEOUT_SECONDS
READ_SIZE = 1 << 16  # bytes of a download that are read at once


@dataclass(frozen=True)
class Generated:
    """A corpus that is generated locally."""

    name: str
    about: str
    licence: str
    generate: Callable[[], str]


@dataclass(frozen=True)
class Remote:
    """A corpus that is downloaded."""

    name: str
    about: str
    licence: str
    url: str
    size: int  # bytes
    sha256: str


def find(name: str) -> Generated | Remote:
    """Return the corpus of this name.

    Raises:
        SettingError: If no corpus has this name. The error lists all names.
    """
    for entry in DATASETS:
        if entry.name == name:
            return entry
    names = [entry.name for entry in DATASETS]
    raise SettingError(
        "corpus", f"invalid value {name}", "give one of " + ", ".join(names) + did_you_mean(name, names)
    )


def download(entry: Remote) -> Iterator[bytes]:
    """Yield the bytes of a corpus, and check them.

    Raises:
        DownloadError: If the server does not answer, or the bytes are incomplete or wrong. Wrong bytes are detected
            after the last one.
    """
    digest, size = hashlib.sha256(), 0
    retry = "check the connection and try again"
    try:
        for block in _fetch(entry):
            digest.update(block)
            size += len(block)
            yield block
    except urllib.error.HTTPError as error:
        error.close()
        answer = f"{error.code} {error.reason}".splitlines()[0]
        raise DownloadError(entry.url, f"the server answered {answer}", "try again later") from None
    except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: an invalid proxy address
        reason = f"the download ended after {size:,} of {entry.size:,} bytes" if size else "cannot be reached"
        raise DownloadError(entry.url, f"{reason} ({_cause(error)})", retry) from None
    if size < entry.size:
        raise DownloadError(entry.url, f"the download ended after {size:,} of {entry.size:,} bytes", retry)
    if digest.hexdigest() != entry.sha256:
        reason = "the file at this address has changed (its SHA-256 differs) and was not saved"
        raise DownloadError(entry.url, reason, "look at it before you use it")


def _fetch(entry: Remote) -> Iterator[bytes]:
    """Yield the blocks of a file as they arrive, and stop after the first block beyond the expected size.

    Another thread reads from the connection, whose timeout applies to each read alone. Without this thread, a server
    that sends a byte now and then could delay the download without limit.

    Raises:
        TimeoutError: If the download is slower than `MIN_SPEED`.
        BaseException: Any exception of the other thread.
    """
    arrived: queue.Queue[bytes | BaseException] = queue.Queue()  # an empty block marks the end

    def receive() -> None:
        size = 0
        try:
            with urllib.request.build_opener(_Redirects).open(entry.url, timeout=TIMEOUT_SECONDS) as response:
                while size <= entry.size and (block := response.read1(READ_SIZE)):
                    arrived.put(block)
                    size += len(block)
            arrived.put(b"")
        except BaseException as error:  # raised again in the other thread
            arrived.put(error)

    started, size = time.monotonic(), 0
    threading.Thread(target=receive, daemon=True).start()
    while True:
        deadline = started + TIMEOUT_SECONDS + size / MIN_SPEED
        try:
            item = arrived.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            raise TimeoutError("timed out") from None
        if isinstance(item, BaseException):
            raise item
        if not item:
            return
        size += len(item)
        yield item


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but only to HTTP and HTTPS."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if urllib.parse.urlsplit(newurl).scheme not in ("http", "https"):
            raise urllib.error.HTTPError(req.full_url, code, f"and redirects to {newurl}", headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _cause(error: Exception) -> str:
    """Return a short reason why a connection failed."""
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, http.client.HTTPException) and not isinstance(cause, OSError):
        return "the answer is not valid HTTP"
    return (getattr(cause, "strerror", None) or str(cause)).lower()


def matches(entry: Remote, data: bytes) -> bool:
    """Return whether these bytes are the corpus."""
    return hashlib.sha256(data).hexdigest() == entry.sha256


def _hello() -> str:
    return "hello\n" * 400


def _python_docs() -> str:
    from pydoc_data.topics import topics

    return "\n\n".join(topics[name].strip("\n") for name in sorted(topics)) + "\n"


def _python_stdlib() -> str:
    """Return the source of the standard library's modules in alphabetical order, without tests and site-packages."""
    root = Path(sysconfig.get_path("stdlib"))
    skipped = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__", "lib2to3"}
    texts = []
    for file in sorted(root.rglob("*.py")):
        if skipped.isdisjoint(file.relative_to(root).parts):
            try:
                texts.append(file.read_text(encoding="utf-8"))
            except UnicodeDecodeError:  # a few modules that test other encodings
                continue
    return "".join(texts)


DATASETS: tuple[Generated | Remote, ...] = (
    Generated("hello", "one word, repeated: a minimal example for a recurrent network", "MIT", _hello),
    Generated("python-docs", "Python's reference topics, as help() shows them", "PSF-2.0", _python_docs),
    Generated("python-stdlib", "the source of Python's standard library", "PSF-2.0", _python_stdlib),
    Remote(
        "tiny-shakespeare",
        "40,000 lines of Shakespeare's plays",
        "public domain",
        "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
        1_115_394,
        "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
    ),
    Remote(
        "names",
        "32,000 given names of the US Social Security Administration, one per line",
        "public domain",
        "https://raw.githubusercontent.com/karpathy/makemore/master/names.txt",
        228_145,
        "0a30b5557f192f32ab962680889aac5f6fda0f4cecf40a6d0b5694f58ea8cc4d",
    ),
    Remote(
        "chinese-poems",
        "Tang dynasty quatrains, 6,257 distinct characters",
        "public domain",
        "https://raw.githubusercontent.com/lucasjinreal/tensorflow_poems/3e36a3343fb0bb4c8e0cab249ed02c756720905d"
        "/data/wujue-all.txt",
        1_692_557,
        "2d97daf87244716bb785f87f12effd1884ae8f02ac1038777c8fc85b9df44b85",
    ),
)
