"""Where a text comes from: files, folders and stdin, decoded as UTF-8 with one kind of line ending.

Knows nothing about vocabularies; `read` gives back plain text and what was noticed on the way.
"""

import codecs
import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from charrnn.errors import CorpusError

STDIN = "-"
GUESSED_ON = 1 << 16  # bytes that the guess at a foreign encoding reads
LIKELY = (  # the encodings that it chooses among, all known to iconv; of equally good ones the first
    "cp1252", "cp1250", "cp1251", "koi8_r", "cp866", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257", "cp1258",
    "cp874", "cp932", "euc_jp", "gb18030", "big5", "cp949",
)  # fmt: skip


@dataclass(frozen=True)
class Source:
    """A text as read.

    CRLF and CR are line feeds by now, and a byte order mark is gone; the fields say what there was.
    """

    name: str  # of the first file without its suffix, or "stdin"
    files: tuple[str, ...]
    text: str
    encoding: str
    line_endings: dict[str, int]  # how many of "LF", "CRLF" and "CR"


def read(paths: Sequence[str]) -> Source:
    """Reads files, folders (their .txt files, sorted) and stdin (``-``) as one text, in the order given.

    Raises:
        CorpusError: a file that is missing, unreadable, not UTF-8 (with the offset of the first wrong byte), a
            folder without text, or no text at all.
    """
    files = [file for path in paths for file in _files(path)]
    texts, endings, mark = [], {"LF": 0, "CRLF": 0, "CR": 0}, False
    for file in files:
        text = decode(read_bytes(file), file)
        mark |= text.startswith("\ufeff")
        text = text.removeprefix("\ufeff")
        crlf = text.count("\r\n")
        endings["CRLF"] += crlf
        endings["CR"] += text.count("\r") - crlf
        endings["LF"] += text.count("\n") - crlf
        texts.append(text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text)
    whole = texts[0] if len(texts) == 1 else "".join(texts)
    if not whole:
        raise CorpusError(", ".join(paths), "is empty", "give a file with text in it")
    return Source(name_of(paths), tuple(files), whole, "UTF-8 with a byte order mark" if mark else "UTF-8", endings)


def name_of(paths: Sequence[str]) -> str:
    """What a model trained on these is called, unless told otherwise."""
    path = Path(paths[0]).resolve()
    return "stdin" if paths[0] == STDIN else path.name if path.is_dir() else path.stem


def decode(data: bytes, name: str) -> str:
    """Decodes UTF-8 strictly.

    Raises:
        CorpusError: not UTF-8; names the offset of the first wrong byte and what the bytes look like.
    """
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        reason = f"is not UTF-8: byte 0x{data[error.start]:02x} at offset {error.start}"
        raise CorpusError(name, reason, _advice(data, error.start, name)) from None


def _files(path: str) -> list[str]:
    if path == STDIN or not os.path.isdir(path):  # Path("") would be the current directory
        return [path]
    found = sorted(str(file) for file in Path(path).rglob("*.txt") if file.is_file())
    if not found:
        raise CorpusError(path, "is a directory with no .txt file in it", "name the files to read")
    return found


def read_bytes(path: str) -> bytes:
    """All bytes of a file, or of stdin (``-``).

    Raises:
        CorpusError: missing or unreadable.
    """
    try:
        if path != STDIN:
            with open(path, "rb") as file:
                return file.read()
        if sys.stdin is None:
            raise CorpusError(STDIN, "stdin is closed", "pipe a text in or name a file")
        return sys.stdin.buffer.read()
    except OSError as error:
        raise CorpusError(path or "''", (error.strerror or str(error)).lower(), "check the path") from None


def _advice(data: bytes, offset: int, name: str) -> str:
    """What to do about bytes that are not UTF-8, from how those around the first wrong one look."""
    sample, file = data[max(0, offset - GUESSED_ON // 2) : offset + GUESSED_ON // 2], shlex.quote(name)
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        guess: str | None = "utf-16"
    elif b"\0" in data[:GUESSED_ON]:
        return "it looks like a binary file; give a text"
    elif _is_damaged(sample):
        return f"it looks like damaged UTF-8, so try without the wrong bytes: iconv -c -f utf-8 -t utf-8 {file}"
    else:
        guess = _guess(sample)
    if guess is None:
        return "it looks like no encoding we know; give a text in UTF-8"
    return f"it looks like {guess}, so try: iconv -f {guess} -t utf-8 {file}"


def _is_damaged(sample: bytes) -> bool:
    """Whether this is UTF-8 but for a few bytes, as after a cut in the middle of a character."""
    text = sample.decode("utf-8", "replace")
    wrong = text.count("\ufffd")
    right = sum(not character.isascii() for character in text) - wrong
    return wrong * 10 <= right


def _guess(sample: bytes) -> str | None:
    """The likeliest encoding of these bytes by the name that iconv has for it, or None."""
    from charset_normalizer import from_bytes  # only a text that is refused pays for this import

    telling = b"\n".join(line for line in sample.splitlines() if not line.isascii())
    matches = from_bytes(telling, cp_isolation=list(LIKELY), threshold=0.5)
    scores = [(match.chaos, match.coherence, match.multi_byte_usage) for match in matches]
    best = [match for match, score in zip(matches, scores, strict=True) if score == scores[0]]
    name = min((name for match in best for name in match.could_be_from_charset), key=LIKELY.index, default=None)
    return name.replace("_", "-") if name else None
