"""Guesses the encoding of bytes that are not UTF-8, and advises the user."""

import codecs

SAMPLE_BYTES = 1 << 16  # bytes that the guess examines
CANDIDATES = (  # encodings to choose from, all known to iconv; the first of equally good ones is chosen
    "cp1252", "cp1250", "cp1251", "koi8_r", "cp866", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257", "cp1258",
    "cp874", "cp932", "euc_jp", "gb18030", "big5", "cp949",
)  # fmt: skip
_MIN_NUL_SHARE = 0.3  # share of NUL among the even or odd bytes that suggests UTF-16


def advice(data: bytes, offset: int, *, name: str = "", encoded: bool = True) -> str:
    """Return what to do about a wrong byte.

    Args:
        data: Bytes of the file around the wrong byte.
        offset: Offset of the wrong byte in ``data``.
        name: Name of the file, quoted for a shell.
        encoded: Whether the byte is invalid UTF-8; False for a valid but unexpected NUL.
    """
    sample = data[max(0, offset - SAMPLE_BYTES // 2) : offset + SAMPLE_BYTES // 2]
    if utf16 := _guess_utf16(data[:SAMPLE_BYTES]):
        return f"add --encoding {utf16}, the most likely one"
    if b"\0" in data[:SAMPLE_BYTES] or not encoded:
        return "give a text file, or add --unit byte to train on a binary file"
    if _is_damaged(sample):
        return f"repair the damaged UTF-8 by removing its invalid bytes: iconv -c -f utf-8 -t utf-8 {name}"
    encoding = guess(sample)
    if encoding is None:
        return "convert the file to UTF-8, or add --encoding or --unit byte"
    return f"add --encoding {encoding}, the most likely one"


def _guess_utf16(sample: bytes) -> str | None:
    """Return the kind of UTF-16, or None. In European texts, every UTF-16 character contains a NUL byte."""
    if sample.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    even, odd = (sample[parity::2].count(0) / max(1, len(sample) // 2) for parity in (0, 1))
    if max(even, odd) < _MIN_NUL_SHARE or min(even, odd) > 0.1 * max(even, odd):
        return None
    return "utf-16-be" if even > odd else "utf-16-le"


def _is_damaged(sample: bytes) -> bool:
    """Return whether all but a few bytes are valid UTF-8, as when the file is cut within a character."""
    text = sample.decode("utf-8", "replace")
    invalid = text.count("\ufffd")
    valid = sum(not character.isascii() for character in text) - invalid
    return invalid * 10 <= valid


def guess(sample: bytes) -> str | None:
    """Return the most likely encoding by its name in Python and iconv, or None."""
    from charset_normalizer import from_bytes  # slow to import, and rarely needed

    non_ascii = b"\n".join(line for line in sample.splitlines() if not line.isascii())
    matches = from_bytes(non_ascii, cp_isolation=list(CANDIDATES), threshold=0.5)
    scores = [(match.chaos, match.coherence, match.multi_byte_usage) for match in matches]
    best = [match for match, score in zip(matches, scores, strict=True) if score == scores[0]]
    name = min((name for match in best for name in match.could_be_from_charset), key=CANDIDATES.index, default=None)
    return name.replace("_", "-") if name else None
