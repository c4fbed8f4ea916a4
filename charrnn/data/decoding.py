"""Decodes bytes to text block by block: encodings, byte order marks, line endings, normalization."""

import codecs
import re
import shlex
import unicodedata
from dataclasses import dataclass, field

from charrnn.config import ReadConfig
from charrnn.data import encoding_guess
from charrnn.errors import CorpusError

BOM = "\ufeff"
_BOMS = (  # UTF-32 first: its little-endian mark begins with that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"), (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip
_LINE_BOMS = re.compile(r"(?:^|(?<=[\n\r]))\ufeff+")
MAX_PENDING_BYTES = 1 << 20  # bytes that a decoder may hold back until they make up a character
MAX_PENDING_CHARACTERS = 1 << 16  # characters that may combine with each other; real texts have a dozen at most


@dataclass
class DecodingStats:
    """Encodings and line endings of the files that were decoded."""

    encodings: dict[str, int] = field(default_factory=dict)  # number of files in each encoding
    line_ends: dict[str, int] = field(default_factory=lambda: {"LF": 0, "CRLF": 0, "CR": 0})  # number of each
    inner_boms: int = 0  # byte order marks that were removed, except at the start of a file


class TextDecoder:
    """Incremental decoder of one file.

    Args:
        config: How to read the text.
        name: Name of the file in error messages.
        decoding_stats: Statistics to update.
    """

    def __init__(self, config: ReadConfig, name: str, decoding_stats: DecodingStats) -> None:
        self._config, self._name, self._stats = config, name, decoding_stats
        self._decoder: codecs.IncrementalDecoder | None = None
        self._assumed_utf8 = False  # whether neither an option nor a byte order mark names the encoding
        self._bytes_read = 0  # before the current block
        self._lines, self._column = 0, 0  # line endings before the current block, and characters after the last one
        self._pending_cr = False  # whether the last block ended with a CR, which may be half of a CRLF
        self._last = ""  # the last character of the text before the current block
        self._pending_text = ""  # text that the next characters may combine with

    def is_binary(self, head: bytes) -> bool:
        """Return whether a file that begins with these bytes is binary."""
        wide = (self._config.encoding or "").lower().replace("_", "-").startswith(("utf-16", "utf-32"))
        has_bom = any(head.startswith(mark) for mark, _ in _BOMS)
        return self._config.unit == "char" and not wide and not has_bom and b"\0" in head

    def feed(self, data: bytes, *, last: bool) -> str:
        """Decode a block of the file. If the unit is a byte, each byte becomes the character with its value.

        Args:
            data: The next bytes of the file.
            last: Whether they are the last ones.

        Raises:
            CorpusError: If the bytes are not in the encoding. The error names line, column and byte.
        """
        if self._config.unit == "byte":
            self._stats.encodings = {"bytes": 1}
            return data.decode("latin-1")
        text = self._decode(data, last)
        if self._pending_cr:
            text, self._pending_cr = "\r" + text, False
        if not last and text.endswith("\r"):
            text, self._pending_cr = text[:-1], True
        text = self._convert_newlines(self._remove_boms(text))
        return text if self._config.normalize == "none" else self._normalize(text, last)

    def _decode(self, data: bytes, last: bool) -> str:
        first = self._decoder is None
        if self._decoder is None:
            self._decoder = self._create_decoder(data)
        nul = data.find(b"\0") if self._assumed_utf8 else -1
        head, tail = (data, b"") if nul < 0 else (data[:nul], data[nul:])
        try:
            text = self._decoder.decode(head, last or nul >= 0)
        except UnicodeError as error:
            raise self._decoding_error(head, tail, error) from None
        if nul >= 0:
            advice = encoding_guess.advice(data, nul, encoded=False)
            raise self._error_at("contains a NUL byte", text, nul, advice)
        check_pending(self._decoder, self._name, self._encoding)
        self._bytes_read += len(data)
        if first:
            if text.startswith(BOM):
                text = text[1:]
                self._count_encoding(f"{self._encoding} with a byte order mark")
            else:
                self._count_encoding(self._encoding)
        return text

    def _create_decoder(self, data: bytes) -> codecs.IncrementalDecoder:
        given = self._config.encoding
        from_bom = next((encoding for mark, encoding in _BOMS if data.startswith(mark)), None)
        name = given or from_bom or "utf-8"
        self._assumed_utf8 = given is None and from_bom is None
        self._codec = codecs.lookup(name).name  # errors name some codecs by names that cannot be looked up
        self._encoding = self._codec.upper() + (" with a byte order mark" if from_bom and not given else "")
        return codecs.getincrementaldecoder(name)()

    def _count_encoding(self, encoding: str) -> None:
        self._stats.encodings[encoding] = self._stats.encodings.get(encoding, 0) + 1

    def _remove_boms(self, text: str) -> str:
        """Count and remove byte order marks at the start of a line, as `remove_boms` does."""
        if BOM in text:
            text, num_marks = _LINE_BOMS.subn("", self._last + text)
            text = text[len(self._last) :]
            self._stats.inner_boms += num_marks
        self._last = text[-1:] or self._last
        return text

    def _convert_newlines(self, text: str) -> str:
        """Count the line endings, and convert them if the config says so."""
        ends = self._stats.line_ends
        crlf = text.count("\r\n") if "\r" in text else 0
        cr, lf = text.count("\r") - crlf if "\r" in text else 0, text.count("\n") - crlf
        ends["CRLF"], ends["CR"], ends["LF"] = ends["CRLF"] + crlf, ends["CR"] + cr, ends["LF"] + lf
        self._lines += crlf + cr + lf
        end = max(text.rfind("\n"), text.rfind("\r") if crlf + cr else -1)
        self._column = len(text) - 1 - end + (self._column if end < 0 else 0)
        return _with_unix_newlines(text) if crlf + cr and self._config.newlines == "unix" else text

    def _normalize(self, text: str, last: bool) -> str:
        """Normalize the text. Hold back its end, which may combine with the next block."""
        text, self._pending_text = self._pending_text + text, ""
        if not last:
            positions = range(len(text) - 1, max(-1, len(text) - MAX_PENDING_CHARACTERS - 1), -1)
            cut = next((position for position in positions if can_cut_before(text[position])), 0)
            text, self._pending_text = text[:cut], text[cut:]
            if len(self._pending_text) > MAX_PENDING_CHARACTERS:
                reason = f"has more than {MAX_PENDING_CHARACTERS:,} combining characters in a row"
                raise CorpusError(self._name, reason, "leave out --normalize")
        return _normalized(text, self._config)

    def _decoding_error(self, data: bytes, rest: bytes, error: UnicodeError) -> CorpusError:
        """Return the error for a codec's error.

        Args:
            data: The bytes that were given to the codec.
            rest: The bytes after them.
            error: The codec's error.
        """
        if not isinstance(error, UnicodeDecodeError):  # for example UTF-16 without a byte order mark
            return CorpusError(self._name, f"is not {self._encoding} ({error})", "give the right --encoding")
        carried = len(error.object) - len(data)  # bytes of a character that began in the previous block
        before = error.object[: error.start].decode(self._codec, "replace")
        reason = f"is not {self._encoding}: byte 0x{error.object[error.start]:02x}"
        advice = "give the right --encoding, or omit it to get a guess"
        if self._assumed_utf8:
            advice = encoding_guess.advice(error.object + rest, error.start, name=shlex.quote(self._name))
        return self._error_at(reason, before, error.start - carried, advice)

    def _error_at(self, reason: str, before: str, offset: int, advice: str) -> CorpusError:
        """Return an error with line, column and byte.

        Args:
            reason: What is wrong.
            before: Text of the current block before the error.
            offset: Offset of the wrong byte in the current block.
            advice: What to do.
        """
        before = "\r" * self._pending_cr + before
        lines = self._lines + before.count("\n") + before.count("\r") - before.count("\r\n")
        end = max(before.rfind("\n"), before.rfind("\r"))
        column = len(before) - end + (self._column if end < 0 else 0)
        position = f"at line {lines + 1:,}, column {column:,} (byte {self._bytes_read + offset:,})"
        return CorpusError(self._name, f"{reason} {position}", advice)


def remove_boms(text: str) -> str:
    """Return a text without byte order marks at the start of a line.

    A line starts with such a mark if a file with a mark was appended to another file. Within a line, the character
    is a zero-width no-break space, which is kept.
    """
    return _LINE_BOMS.sub("", text) if BOM in text else text


def check_pending(decoder: codecs.IncrementalDecoder, name: str, encoding: str) -> None:
    """Check the number of bytes that a decoder holds back. The decoder of UTF-7 has no limit.

    Raises:
        CorpusError: If there are more than `MAX_PENDING_BYTES`.
    """
    if len(decoder.getstate()[0]) > MAX_PENDING_BYTES:
        reason = f"has {MAX_PENDING_BYTES >> 20} MiB without a complete character in {encoding}"
        raise CorpusError(name, reason, "give the right --encoding")


def can_cut_before(character: str) -> bool:
    """Return whether no normalization form combines a character with the one before it."""
    first = unicodedata.normalize("NFKD", character)[0]
    is_mark = unicodedata.combining(first) or unicodedata.category(first).startswith("M")
    is_hangul_part = "\u1160" <= first <= "\u11ff"  # vowels and final consonants
    return not (is_mark or is_hangul_part or first == "\U00016d67")  # the last one is a vowel sign of Kirat Rai


def clean_text(text: str, config: ReadConfig) -> str:
    """Remove byte order marks, convert line endings and normalize a complete text, as `TextDecoder` does."""
    if config.unit == "char":
        text = remove_boms(text)
        text = _with_unix_newlines(text) if config.newlines == "unix" else text
    return _normalized(text, config)


def _with_unix_newlines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _normalized(text: str, config: ReadConfig) -> str:
    if config.normalize == "none":
        return text
    return unicodedata.normalize("NFC" if config.normalize == "nfc" else "NFKC", text)
