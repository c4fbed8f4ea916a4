"""From bytes to text: encodings, byte order marks, line ends, normalization; piece by piece.

Knows nothing about files; it is fed with bytes and passes on the text that is sure by then.
"""

import codecs
import re
import shlex
import unicodedata
from dataclasses import dataclass, field

from charrnn.config import ReadConfig
from charrnn.data import encoding_guess
from charrnn.errors import CorpusError

BOM = "\ufeff"
_BOMS = (  # UTF-32's first, since it begins like UTF-16's
    (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"), (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip
# Characters that never merge with what stands before them, whatever the normalization form: text may be cut there.
_STABLE = re.compile(
    "[\x00-\x7f\u00c0-\u00ff\u0391-\u03c9\u0410-\u044f\u05d0-\u05ea\u0621-\u064a\u0905-\u0939\u0e01-\u0e30"
    "\u2010-\u2026\u3001-\u3002\u3041-\u3096\u30a1-\u30fa\u4e00-\u9fff\uac00-\ud7a3\uff01-\uff5e]"
)


@dataclass
class DecodingStats:
    """What was seen on the way."""

    encodings: dict[str, int] = field(default_factory=dict)  # how many files had each
    line_ends: dict[str, int] = field(default_factory=lambda: {"LF": 0, "CRLF": 0, "CR": 0})  # how many of each


class TextDecoder:
    """The text of one file.

    Args:
        config: how it is read.
        name: what an error calls the file.
        decoding_stats: to which what is seen is added.
    """

    def __init__(self, config: ReadConfig, name: str, decoding_stats: DecodingStats) -> None:
        self._config, self._name, self._noticed = config, name, decoding_stats
        self._decoder: codecs.IncrementalDecoder | None = None
        self._utf8 = False  # and nobody said so
        self._fed = 0  # bytes
        self._lines, self._column = 0, 0  # line ends that were passed on, and characters since the last one
        self._return = False  # the last piece ended with a CR, of which nobody knows yet what it is
        self._merging = ""  # what may merge with what follows

    def is_binary(self, head: bytes) -> bool:
        """Whether a file that begins so holds no text."""
        wide = (self._config.encoding or "").lower().replace("_", "-").startswith(("utf-16", "utf-32"))
        marked = any(head.startswith(mark) for mark, _ in _BOMS)
        return self._config.unit == "char" and not wide and not marked and b"\0" in head

    def feed(self, data: bytes, *, last: bool) -> str:
        """Takes more bytes, in which the file ends if they are the last; where bytes are wanted, each is a character.

        Raises:
            CorpusError: they are not in the encoding; names line, column and byte of the first wrong one.
        """
        if self._config.unit == "byte":
            self._noticed.encodings = {"bytes": 1}
            return data.decode("latin-1")
        text = self._decoded(data, last)
        if self._return:
            text, self._return = "\r" + text, False
        if not last and text.endswith("\r"):
            text, self._return = text[:-1], True
        text = self._counted(text)
        return text if self._config.normalize == "none" else self._normalized(text, last)

    def _decoded(self, data: bytes, last: bool) -> str:
        first = self._decoder is None
        if self._decoder is None:
            self._decoder = self._begun(data)
        zero = data.find(b"\0") if self._utf8 else -1
        sure, rest = (data, b"") if zero < 0 else (data[:zero], data[zero:])
        try:
            text = self._decoder.decode(sure, last or zero >= 0)
        except UnicodeError as error:
            raise self._wrong(sure, rest, error) from None
        if zero >= 0:
            raise self._refusal("holds a NUL byte", text, zero, encoding_guess.advice(data, zero, encoded=False))
        self._fed += len(data)
        if first:
            if text.startswith(BOM):
                text = text[1:]
                self._notice(f"{self._encoding} with a byte order mark")
            else:
                self._notice(self._encoding)
        return text

    def _begun(self, data: bytes) -> codecs.IncrementalDecoder:
        given = self._config.encoding
        marked = next((encoding for mark, encoding in _BOMS if data.startswith(mark)), None)
        name = given or marked or "utf-8"
        self._utf8 = given is None and marked is None
        self._encoding = codecs.lookup(name).name.upper() + (
            " with a byte order mark" if marked and not given else ""
        )
        return codecs.getincrementaldecoder(name)()

    def _notice(self, encoding: str) -> None:
        self._noticed.encodings[encoding] = self._noticed.encodings.get(encoding, 0) + 1

    def _counted(self, text: str) -> str:
        """The text with its line ends counted, and made one kind if that is wanted."""
        ends = self._noticed.line_ends
        crlf = text.count("\r\n") if "\r" in text else 0
        cr, lf = text.count("\r") - crlf if "\r" in text else 0, text.count("\n") - crlf
        ends["CRLF"], ends["CR"], ends["LF"] = ends["CRLF"] + crlf, ends["CR"] + cr, ends["LF"] + lf
        self._lines += crlf + cr + lf
        end = max(text.rfind("\n"), text.rfind("\r") if crlf + cr else -1)
        self._column = len(text) - 1 - end + (self._column if end < 0 else 0)
        return _with_unix_lines(text) if crlf + cr and self._config.newlines == "unix" else text

    def _normalized(self, text: str, last: bool) -> str:
        """In the wanted form, but for the end of the text, which what follows might change."""
        text, self._merging = self._merging + text, ""
        if not last:
            cut = max((found.start() for found in _STABLE.finditer(text, max(0, len(text) - 64))), default=-1)
            if cut < 0:
                cut = max((found.start() for found in _STABLE.finditer(text)), default=0)
            text, self._merging = text[:cut], text[cut:]
        return _in_form(text, self._config)

    def _wrong(self, data: bytes, rest: bytes, error: UnicodeError) -> CorpusError:
        if not isinstance(error, UnicodeDecodeError):  # as UTF-16 without a mark says it
            return CorpusError(self._name, f"is not {self._encoding} ({error})", "give its own --encoding")
        held = len(error.object) - len(data)  # bytes of a character that the piece before began
        before = error.object[: error.start].decode(error.encoding, "replace")
        wrong = f"is not {self._encoding}: byte 0x{error.object[error.start]:02x}"
        advice = "give its own --encoding, or leave that out for a guess"
        if self._utf8:
            advice = encoding_guess.advice(error.object + rest, error.start, name=shlex.quote(self._name))
        return self._refusal(wrong, before, error.start - held, advice)

    def _refusal(self, what: str, before: str, place: int, advice: str) -> CorpusError:
        """An error at a byte of the present piece, given the text of the piece before it."""
        before = "\r" * self._return + before
        lines = self._lines + before.count("\n") + before.count("\r") - before.count("\r\n")
        end = max(before.rfind("\n"), before.rfind("\r"))
        column = len(before) - end + (self._column if end < 0 else 0)
        where = f"in line {lines + 1:,}, column {column:,} (byte {self._fed + place:,})"
        return CorpusError(self._name, f"{what} {where}", advice)


def clean_text(text: str, config: ReadConfig) -> str:
    """A whole text as a `TextDecoder` would give it back."""
    if config.unit == "char" and config.newlines == "unix":
        text = _with_unix_lines(text)
    return _in_form(text, config)


def _with_unix_lines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _in_form(text: str, config: ReadConfig) -> str:
    if config.normalize == "none":
        return text
    return unicodedata.normalize("NFC" if config.normalize == "nfc" else "NFKC", text)
