"""What bytes that are not UTF-8 look like, and what to do about it."""

import codecs

SAMPLE_BYTES = 1 << 16  # bytes that the guess at a foreign encoding reads
CANDIDATES = (  # the encodings that it chooses among, all known to iconv; of equally good ones the first
    "cp1252", "cp1250", "cp1251", "koi8_r", "cp866", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257", "cp1258",
    "cp874", "cp932", "euc_jp", "gb18030", "big5", "cp949",
)  # fmt: skip
_MOSTLY = 0.3  # the share of NUL bytes among every second one that makes UTF-16 likely


def advice(data: bytes, place: int, *, name: str = "", encoded: bool = True) -> str:
    """What to do about bytes of which the one at ``place`` is wrong.

    Args:
        data: they and some around.
        place: where.
        name: of the file, as a word of a shell.
        encoded: whether they are wrong as UTF-8, and not only unusual.
    """
    sample = data[max(0, place - SAMPLE_BYTES // 2) : place + SAMPLE_BYTES // 2]
    if wide := _wide(data[:SAMPLE_BYTES]):
        return f"it looks like {wide}, so add --encoding {wide}"
    if b"\0" in data[:SAMPLE_BYTES] or not encoded:
        return "it looks like a binary file; give a text, or add --unit byte"
    if _is_damaged(sample):
        return f"it looks like damaged UTF-8, so try without the wrong bytes: iconv -c -f utf-8 -t utf-8 {name}"
    found = guess(sample)
    if found is None:
        return "it looks like no encoding we know; give a text in UTF-8, or add --encoding or --unit byte"
    return f"it looks like {found}, so add --encoding {found}"


def _wide(sample: bytes) -> str | None:
    """UTF-16 by its NUL bytes, of which European texts have one in each character."""
    if sample.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    even, odd = (sample[begin::2].count(0) / max(1, len(sample) // 2) for begin in (0, 1))
    if max(even, odd) < _MOSTLY or min(even, odd) > 0.1 * max(even, odd):
        return None
    return "utf-16-be" if even > odd else "utf-16-le"


def _is_damaged(sample: bytes) -> bool:
    """Whether this is UTF-8 but for a few bytes, as after a cut in the middle of a character."""
    text = sample.decode("utf-8", "replace")
    wrong = text.count("\ufffd")
    right = sum(not character.isascii() for character in text) - wrong
    return wrong * 10 <= right


def guess(sample: bytes) -> str | None:
    """The likeliest encoding of these bytes by the name that Python and iconv have for it, or None."""
    from charset_normalizer import from_bytes  # only a text that is refused pays for this import

    telling = b"\n".join(line for line in sample.splitlines() if not line.isascii())
    matches = from_bytes(telling, cp_isolation=list(CANDIDATES), threshold=0.5)
    scores = [(match.chaos, match.coherence, match.multi_byte_usage) for match in matches]
    best = [match for match, score in zip(matches, scores, strict=True) if score == scores[0]]
    name = min((name for match in best for name in match.could_be_from_charset), key=CANDIDATES.index, default=None)
    return name.replace("_", "-") if name else None
