"""Baselines to compare a model with: Markov models, in nats, and compressors, in bits. Does not import torch."""

import lzma
import zlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from charrnn.data import sources

Ints = NDArray[np.int64]

_GZIP_WINDOW = 1 << 15  # bytes that gzip can refer back to
_ZSTD_ULTRA = 22  # zstd's highest level
_MIN_DICTIONARY_BYTES = 8  # zstd rejects shorter dictionaries


def markov_nats(
    training: NDArray[np.integer], measured: NDArray[np.integer], order: int, vocab_size: int
) -> list[NDArray[np.float64]]:
    """Return the surprisal of each symbol of a text under Markov models of order 0 to ``order``.

    A model of order k predicts a symbol from the k symbols before it. Its counts in the training text are smoothed
    with the model of order k - 1, down to the uniform distribution, in proportion to the number of different symbols
    that followed the context (Witten & Bell 1991, in the interpolated form of Chen & Goodman 1998):
    ``p(x | c) = (n(c, x) + t(c) p(x | c')) / (n(c) + t(c))``. Here c' is the context c without its first symbol,
    n(c, x) counts occurrences of x after c, n(c) is their sum, and t(c) counts the different symbols after c.

    Args:
        training: Ids of the training text, (n,), from 0 to ``vocab_size`` - 1.
        measured: Ids of the measured text, (m,). The first symbols are predicted from fewer than ``order`` symbols.
        order: The highest order, 0 or more.
        vocab_size: V.

    Returns:
        Nats (m,) for each order from 0 to ``order``.
    """
    nats = []
    probs = np.full(len(measured), 1 / vocab_size)
    # A context is an integer. Contexts that don't occur in the training text share one integer, which has no counts.
    contexts, measured_contexts = np.zeros(len(training), dtype=np.int64), np.zeros(len(measured), dtype=np.int64)
    for depth in range(order + 1):
        if depth >= min(len(training), len(measured)):  # no symbol has a context of this length
            nats.append(-np.log(probs))
            continue
        predicted = slice(depth, None)  # symbols with a context of this length
        pairs, counts = np.unique(contexts[predicted] * vocab_size + training[predicted], return_counts=True)
        distinct, starts = np.unique(pairs // vocab_size, return_index=True)
        totals = np.add.reduceat(counts, starts) if len(counts) else counts
        num_followers = np.diff(np.append(starts, len(pairs)))
        context_index = _indices(distinct, measured_contexts[predicted])
        seen = context_index >= 0
        n = np.where(seen, totals[context_index], 0)
        t = np.where(seen, num_followers[context_index], 0)
        pair_index = _indices(pairs, measured_contexts[predicted] * vocab_size + measured[predicted])
        n_x = np.where(seen & (pair_index >= 0), counts[pair_index], 0)
        probs[predicted] = np.where(seen, (n_x + t * probs[predicted]) / np.maximum(n + t, 1), probs[predicted])
        nats.append(-np.log(probs))
        # Extend each context by the symbol depth + 1 positions back, and renumber contexts from 0 to keep them small.
        longer = np.zeros_like(contexts)
        longer[depth + 1 :] = contexts[depth + 1 :] * vocab_size + training[: len(training) - depth - 1]
        measured_longer = np.zeros_like(measured_contexts)
        measured_longer[depth + 1 :] = (
            measured_contexts[depth + 1 :] * vocab_size + measured[: len(measured) - depth - 1]
        )
        distinct = np.unique(longer[depth + 1 :])
        contexts[depth + 1 :] = np.searchsorted(distinct, longer[depth + 1 :])
        measured_contexts = _indices(distinct, measured_longer)
        measured_contexts[measured_contexts < 0] = len(distinct)  # the context without counts
    return nats


def compressed_bits(training: bytes, measured: bytes) -> Iterator[tuple[str, float]]:
    """Yield the name of each compressor, and the number of bits that it needs for ``measured`` after ``training``."""
    deflate = zlib.compressobj(9, zdict=training[-_GZIP_WINDOW:]) if training else zlib.compressobj(9)
    yield "gzip", 8 * len(deflate.compress(measured) + deflate.flush())

    def xz_size(data: bytes) -> int:
        return len(lzma.compress(data, preset=9 | lzma.PRESET_EXTREME))

    yield "xz", 8 * (xz_size(training + measured) - xz_size(training))  # xz has no dictionaries
    yield "zstd --ultra", 8 * _zstd_size(training, measured)


def _zstd_size(training: bytes, measured: bytes) -> int:
    zstd = sources.zstd()
    setting = zstd.CompressionParameter
    low, high = setting.window_log.bounds()
    window_log = min(high, max(low, (len(training) + len(measured)).bit_length()))
    dictionary = zstd.ZstdDict(training, is_raw=True) if len(training) >= _MIN_DICTIONARY_BYTES else None
    options = {setting.compression_level: _ZSTD_ULTRA, setting.window_log: window_log}
    return len(zstd.compress(measured, options=options, zstd_dict=dictionary))


def xz_bits(data: bytes, characters: int) -> float:
    """Return the bits per character that xz needs for a text with this number of characters."""
    return 8 * len(lzma.compress(data)) / characters


def _indices(sorted_values: Ints, values: Ints) -> Ints:
    """Return the index of each value in a sorted array, or -1 for values that it doesn't contain."""
    if not len(sorted_values):
        return np.full(len(values), -1, dtype=np.int64)
    index = np.minimum(np.searchsorted(sorted_values, values), len(sorted_values) - 1)
    return np.where(sorted_values[index] == values, index, -1)
