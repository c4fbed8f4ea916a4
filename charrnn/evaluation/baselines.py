"""What simpler rulers say of a text: Markov models and compressors, in nats or bits per character. Needs no torch."""

import lzma
import zlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from charrnn.data import sources

Numbers = NDArray[np.int64]

_ZLIB_WINDOW = 1 << 15  # bytes that gzip looks back
_ULTRA = 22  # zstd's highest level
_SHORTEST_DICTIONARY = 8  # bytes; zstd refuses less


def markov_nats(
    training: NDArray[np.integer], measured: NDArray[np.integer], order: int, vocab_size: int
) -> list[NDArray[np.float64]]:
    """Nats of each symbol of one text under Markov models of another, of order 0, 1, ... ``order``.

    Each symbol is predicted from the ``order`` before it, by their counts, smoothed with those of one symbol less and
    so on down to equal chances, each in proportion to how many different symbols followed (Witten & Bell 1991, in the
    interpolated form of Chen & Goodman 1998):
    ``p(x | c) = (n(c, x) + t(c) p(x | c')) / (n(c) + t(c))``, where n counts and t counts different ones.

    Args:
        training: ids (n,) from 0 to below ``vocab_size``.
        measured: ids (m,); the first ones are predicted from fewer than ``order``.
        order: 0 or more.
        vocab_size: V.
    """
    nats = []
    chances = np.full(len(measured), 1 / vocab_size)
    # A context is a number; contexts that never came in training share one that has no counts.
    contexts, wanted = np.zeros(len(training), dtype=np.int64), np.zeros(len(measured), dtype=np.int64)
    for depth in range(order + 1):
        if depth >= min(len(training), len(measured)):  # nothing has so long a past
            nats.append(-np.log(chances))
            continue
        known = slice(depth, None)
        pairs = contexts[known] * vocab_size + training[known]
        kinds, counts = np.unique(pairs, return_counts=True)
        owners, firsts = np.unique(kinds // vocab_size, return_index=True)
        totals = np.add.reduceat(counts, firsts) if len(counts) else counts
        followers = np.diff(np.append(firsts, len(kinds)))
        owner = _places(owners, wanted[known])
        found = owner >= 0
        n = np.where(found, totals[owner], 0)
        t = np.where(found, followers[owner], 0)
        kind = _places(kinds, wanted[known] * vocab_size + measured[known])
        seen = np.where(found & (kind >= 0), counts[kind], 0)
        chances[known] = np.where(found, (seen + t * chances[known]) / np.maximum(n + t, 1), chances[known])
        nats.append(-np.log(chances))
        # One symbol further back: the context of depth + 1 is the symbol there and the context of depth.
        longer = np.zeros_like(contexts)
        longer[depth + 1 :] = contexts[depth + 1 :] * vocab_size + training[: len(training) - depth - 1]
        longer_wanted = np.zeros_like(wanted)
        longer_wanted[depth + 1 :] = wanted[depth + 1 :] * vocab_size + measured[: len(measured) - depth - 1]
        names = np.unique(longer[depth + 1 :])
        contexts[depth + 1 :] = np.searchsorted(names, longer[depth + 1 :])
        wanted = _places(names, longer_wanted)
        wanted[wanted < 0] = len(names)  # which nothing follows
    return nats


def compressed_bits(training: bytes, measured: bytes) -> Iterator[tuple[str, float]]:
    """Bits that compressors take for one text if they know another, by their names."""
    deflate = zlib.compressobj(9, zdict=training[-_ZLIB_WINDOW:]) if training else zlib.compressobj(9)
    yield "gzip", 8 * len(deflate.compress(measured) + deflate.flush())

    def xz(data: bytes) -> int:
        return len(lzma.compress(data, preset=9 | lzma.PRESET_EXTREME))

    yield "xz", 8 * (xz(training + measured) - xz(training))  # which takes no dictionary
    yield "zstd --ultra", 8 * _zstd(training, measured)


def _zstd(training: bytes, measured: bytes) -> int:
    zstd = sources.zstd()
    setting = zstd.CompressionParameter
    low, high = setting.window_log.bounds()
    window_log = min(high, max(low, (len(training) + len(measured)).bit_length()))
    known = zstd.ZstdDict(training, is_raw=True) if len(training) >= _SHORTEST_DICTIONARY else None
    options = {setting.compression_level: _ULTRA, setting.window_log: window_log}
    return len(zstd.compress(measured, options=options, zstd_dict=known))


def xz_bits(data: bytes, characters: int) -> float:
    """Bits per character that xz needs."""
    return 8 * len(lzma.compress(data)) / characters


def _places(among: Numbers, wanted: Numbers) -> Numbers:
    """Where in a sorted array each of the wanted numbers stands; -1 where it doesn't."""
    if not len(among):
        return np.full(len(wanted), -1, dtype=np.int64)
    place = np.minimum(np.searchsorted(among, wanted), len(among) - 1)
    return np.where(among[place] == wanted, place, -1)
