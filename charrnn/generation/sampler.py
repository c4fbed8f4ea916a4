"""Sample the id of the next character from its logits, for B streams at once.

The settings apply in this order: repeat penalty, allowed and forbidden characters, temperature, top-k, top-p, min-p.
The probabilities are normalized again after top-k. Every filter keeps at least the most probable character. This
module does not depend on the network.
"""

import numpy as np
from numpy.typing import NDArray

from charrnn.charset import compile_charset
from charrnn.config import SampleConfig
from charrnn.data.vocabulary import BOUNDARY, UNKNOWN
from charrnn.errors import SettingError

# At this temperature, only the largest fp32 logit has a probability above 0, and float64 does not overflow yet.
MIN_TEMPERATURE = 1e-250
NO_ID = -1  # padding among recent ids

Ids = NDArray[np.intp]
Numbers = NDArray[np.float64]


class Sampler:
    """Samples characters of B streams. The caller provides the random numbers.

    Args:
        config: Temperature, filters and length.
        symbols: Symbols of the vocabulary in the order of their ids.

    Attributes:
        forbidden_ids: Mask (V,) of the ids that are never sampled.
        has_temperature_range: Whether the temperature depends on the position of a character.
        temperature_only: Whether no setting but the temperature and ``forbidden_ids`` changes the distribution.
        window: Number of recent ids that `sample` needs.

    Raises:
        SettingError: If no character is allowed.
    """

    def __init__(self, config: SampleConfig, symbols: str) -> None:
        self._config = config
        self._has_filters = config.top_k > 0 or config.top_p < 1 or config.min_p > 0
        self.forbidden_ids = _forbidden_ids(config, symbols)
        self._boundary_id = symbols.find(BOUNDARY)  # -1 if there is none
        self._has_forbidden_ids = bool(self.forbidden_ids.any())
        self._max_temperature, self._min_temperature = max(config.temperatures), min(config.temperatures)
        self.has_temperature_range = self._max_temperature > self._min_temperature
        self.temperature_only = not self._has_filters and config.repeat_penalty == 1
        self.window = config.repeat_window if config.repeat_penalty != 1 else 0

    def temperatures(self, positions: Ids) -> Numbers:
        """Return the temperatures of characters at these positions, where 0 is the first new character."""
        first, last = self._config.temperatures
        if first == last:
            return np.full(positions.shape, first, dtype=np.float64)
        end = max(1, self._config.length - 1)
        return np.asarray(first + (last - first) * np.minimum(positions / end, 1))  # batches may exceed the length

    def sample(
        self,
        logits: NDArray[np.float32],
        uniforms: Numbers,
        temperatures: Numbers,
        recent: Ids,
        forbidden: NDArray[np.bool_] | None = None,
    ) -> Ids:
        """Sample ids (B,) from the distribution of `distribution`. At temperature 0, return the most probable ids.

        Args:
            logits: Logits (B, V).
            uniforms: Random numbers (B,) in [0, 1).
            temperatures: Temperatures (B,).
            recent: Recent ids (B, window), padded with `NO_ID`.
            forbidden: Mask (B, V) of ids that are forbidden in this step, in addition to `forbidden_ids`.

        Raises:
            SettingError: If every id of a stream is forbidden.
        """
        scores = self._scores(logits, recent)
        if forbidden is not None:
            scores[forbidden] = -np.inf
            if np.isneginf(scores).all(axis=1).any():
                field = "allow" if self._config.allow else "forbid"
                raise SettingError(field, "no allowed byte continues this UTF-8 character", "allow more bytes")
        if not self._max_temperature:
            return np.asarray(scores.argmax(axis=1))
        cumulative = np.add.accumulate(self._unnormalized_probs(scores, temperatures), axis=1)
        total = cumulative[:, -1:]
        # Rounding up to the total would select an id beyond the last one with a probability above 0.
        thresholds = np.minimum(uniforms[:, None] * total, np.nextafter(total, 0))
        sampled: Ids = np.add.reduce(cumulative <= thresholds, axis=1, dtype=np.intp)
        return sampled if self._min_temperature else np.where(temperatures == 0, scores.argmax(axis=1), sampled)

    def distribution(self, logits: NDArray[np.float32], temperatures: Numbers, recent: Ids) -> Numbers:
        """Return the probabilities (B, V) of the ids, for temperatures above 0 and the arguments of `sample`."""
        probs = self._unnormalized_probs(self._scores(logits, recent), temperatures)
        return np.asarray(probs / probs.sum(axis=1, keepdims=True))

    def _scores(self, logits: NDArray[np.float32], recent: Ids) -> Numbers:
        """Return the logits (B, V) after the repeat penalty, -inf for forbidden ids."""
        scores = logits.astype(np.float64)
        if recent.shape[1]:
            log_probs = log_softmax(scores)  # at most 0, so a factor above 1 makes an id less probable
            is_recent = np.zeros((len(scores), scores.shape[1] + 1), dtype=bool)
            np.put_along_axis(is_recent, recent, True, axis=1)  # NO_ID is -1: the extra last column
            is_recent[:, self._boundary_id] = False  # a boundary is not penalized; -1 is the extra column again
            scores = np.where(is_recent[:, :-1], log_probs * self._config.repeat_penalty, log_probs)
        if self._has_forbidden_ids:
            scores[:, self.forbidden_ids] = -np.inf
        return scores

    def _unnormalized_probs(self, scores: Numbers, temperatures: Numbers) -> Numbers:
        """Return unnormalized probabilities (B, V). Sampling does not need the sum to be 1."""
        probs = scores - np.maximum.reduce(scores, axis=1, keepdims=True)  # faster than scores.max
        probs /= (
            temperatures if self._min_temperature > MIN_TEMPERATURE else np.maximum(temperatures, MIN_TEMPERATURE)
        )[:, None]
        np.exp(probs, out=probs)
        return self._filter(probs / probs.sum(axis=1, keepdims=True)) if self._has_filters else probs

    def _filter(self, probabilities: Numbers) -> Numbers:
        """Apply top-k, top-p and min-p to probabilities (B, V), in place. The result may be unnormalized."""
        config = self._config
        if 0 < config.top_k < probabilities.shape[1]:
            dropped = _ranked(probabilities)[:, config.top_k :]
            np.put_along_axis(probabilities, dropped, 0, axis=1)
            probabilities /= probabilities.sum(axis=1, keepdims=True)
        if config.top_p < 1:  # nucleus sampling (Holtzman et al. 2020)
            order = _ranked(probabilities)
            descending = np.take_along_axis(probabilities, order, axis=1)
            sum_before = np.cumsum(descending, axis=1)
            sum_before[:, 1:] = sum_before[:, :-1]
            sum_before[:, 0] = -1  # always keep the most probable id
            np.put_along_axis(probabilities, order, np.where(sum_before < config.top_p, descending, 0), axis=1)
        if config.min_p > 0:
            probabilities[probabilities < config.min_p * probabilities.max(axis=1, keepdims=True)] = 0
        return probabilities


def log_softmax(logits: NDArray[np.floating]) -> Numbers:
    """Return the natural logarithms of the softmax (B, V) of logits."""
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def _ranked(probabilities: Numbers) -> Ids:
    """Return the ids (B, V) in order of descending probability; the lower of equally probable ids comes first."""
    return np.argsort(-probabilities, axis=1, kind="stable")


def _forbidden_ids(config: SampleConfig, symbols: str) -> NDArray[np.bool_]:
    """Return a mask (V,): the unknown character and characters that the user excludes, but never the boundary."""
    if not config.allow and not config.forbid:
        return np.array([symbol == UNKNOWN for symbol in symbols])
    allow, forbid = (compile_charset(name, getattr(config, name)) for name in ("allow", "forbid"))

    def is_excluded(symbol: str) -> bool:
        return symbol == UNKNOWN or bool((config.allow and not allow.match(symbol)) or forbid.match(symbol))

    forbidden = [symbol != BOUNDARY and is_excluded(symbol) for symbol in symbols]
    if sum(forbidden) == len(symbols) - (BOUNDARY in symbols):
        name = "allow" if config.allow else "forbid"
        reason = f"leaves no character of the vocabulary ({getattr(config, name)!r})"
        raise SettingError(name, reason, "choose characters that charrnn info lists")
    return np.array(forbidden)
