"""From the logits of the next character to its id, for B streams at once.

The settings act in this order: repeat penalty, allowed and forbidden characters, temperature, top-k, top-p, min-p.
Each filter works on what the one before it left, made a distribution again. At least the likeliest character always
stays. Knows nothing about networks or text.
"""

import numpy as np
from numpy.typing import NDArray

from charrnn.charset import compile_charset
from charrnn.config import SampleConfig
from charrnn.data.vocabulary import BOUNDARY, UNKNOWN
from charrnn.errors import SettingError

MIN_TEMPERATURE = (
    1e-250  # temperature; any fp32 logit below the largest has no chance by then, and float64 no overflow yet
)
NO_ID = -1  # the id of no character, among the recent ones

Ids = NDArray[np.intp]
Numbers = NDArray[np.float64]


class Sampler:
    """Chooses ids from logits; draws no random numbers of its own.

    Args:
        config: temperature, filters, length.
        symbols: those of the vocabulary, in the order of their ids.

    Raises:
        SettingError: no character is allowed.
    """

    def __init__(self, config: SampleConfig, symbols: str) -> None:
        self._config = config
        self._filters = config.top_k > 0 or config.top_p < 1 or config.min_p > 0
        self.forbidden_ids = _forbidden_ids(config, symbols)  # (V,), which ids are not to be written
        self._end = symbols.find(BOUNDARY)  # no character, and nothing that could be repeated
        self._forbids = bool(self.forbidden_ids.any())
        self._max_temperature, self._min_temperature = max(config.temperatures), min(config.temperatures)
        self.has_temperature_range = (
            self._max_temperature > self._min_temperature
        )  # so that it matters where a character stands
        self.temperature_only = (
            not self._filters and config.repeat_penalty == 1
        )  # nothing but temperature and ``forbidden_ids``
        self.window = config.repeat_window if config.repeat_penalty != 1 else 0  # recent ids that it wants to know

    def temperatures(self, positions: Ids) -> Numbers:
        """The temperatures of characters at these places of their samples, 0 the first new one."""
        first, last = self._config.temperatures
        if first == last:
            return np.full(positions.shape, first, dtype=np.float64)
        end = max(1, self._config.length - 1)
        return np.asarray(first + (last - first) * np.minimum(positions / end, 1))  # some steps go beyond the end

    def sample(
        self,
        logits: NDArray[np.float32],
        uniforms: Numbers,
        temperatures: Numbers,
        recent: Ids,
        forbidden: NDArray[np.bool_] | None = None,
    ) -> Ids:
        """Ids (B,) drawn from what `distribution` gives; where the temperature is 0 the likeliest one.

        Args:
            logits: (B, V).
            uniforms: (B,), random numbers from 0 to below 1.
            temperatures: (B,).
            recent: (B, `window`) ids, NO_ID where there are fewer.
            forbidden: (B, V), what may not be chosen this time.

        Raises:
            SettingError: there is nothing left that may be.
        """
        scores = self._scores(logits, recent)
        if forbidden is not None:
            scores[forbidden] = -np.inf
            if np.isneginf(scores).all(axis=1).any():
                field = "allow" if self._config.allow else "forbid"
                raise SettingError(field, "leaves no byte with which a character could go on", "allow more, or all")
        if not self._max_temperature:
            return np.asarray(scores.argmax(axis=1))
        cumulative = np.add.accumulate(self._weights(scores, temperatures), axis=1)
        total = cumulative[:, -1:]
        # The product may round up to the total, beyond the last character that has a probability.
        wanted = np.minimum(uniforms[:, None] * total, np.nextafter(total, 0))
        drawn: Ids = np.add.reduce(cumulative <= wanted, axis=1, dtype=np.intp)
        return drawn if self._min_temperature else np.where(temperatures == 0, scores.argmax(axis=1), drawn)

    def distribution(self, logits: NDArray[np.float32], temperatures: Numbers, recent: Ids) -> Numbers:
        """The probabilities (B, V) of the ids, for temperatures above 0; arguments as of `sample`."""
        weights = self._weights(self._scores(logits, recent), temperatures)
        return np.asarray(weights / weights.sum(axis=1, keepdims=True))

    def _scores(self, logits: NDArray[np.float32], recent: Ids) -> Numbers:
        """Logits after the penalty, -inf where nothing may be written."""
        scores = logits.astype(np.float64)
        if recent.shape[1]:
            logs = log_softmax(scores)  # at most 0, so that a power above 1 makes each less likely
            seen = np.zeros((len(scores), scores.shape[1] + 1), dtype=bool)
            np.put_along_axis(seen, recent, True, axis=1)  # NO_ID falls on the last column
            seen[:, self._end] = False  # which is the last one where there is none
            scores = np.where(seen[:, :-1], logs * self._config.repeat_penalty, logs)
        if self._forbids:
            scores[:, self.forbidden_ids] = -np.inf
        return scores

    def _weights(self, scores: Numbers, temperatures: Numbers) -> Numbers:
        """What the probabilities are proportional to: a choice needs no sum of 1."""
        weights = scores - np.maximum.reduce(scores, axis=1, keepdims=True)  # which is max without its detours
        weights /= (
            temperatures if self._min_temperature > MIN_TEMPERATURE else np.maximum(temperatures, MIN_TEMPERATURE)
        )[:, None]
        np.exp(weights, out=weights)
        return self._filter(weights / weights.sum(axis=1, keepdims=True)) if self._filters else weights

    def _filter(self, probabilities: Numbers) -> Numbers:
        config = self._config
        if 0 < config.top_k < probabilities.shape[1]:
            dropped = _ranked(probabilities)[:, config.top_k :]
            np.put_along_axis(probabilities, dropped, 0, axis=1)
            probabilities /= probabilities.sum(axis=1, keepdims=True)
        if config.top_p < 1:
            order = _ranked(probabilities)
            sorted_ones = np.take_along_axis(probabilities, order, axis=1)
            reached = np.cumsum(sorted_ones, axis=1)
            reached[:, 1:] = reached[:, :-1]  # before each of them
            reached[:, 0] = -1
            np.put_along_axis(probabilities, order, np.where(reached < config.top_p, sorted_ones, 0), axis=1)
        if config.min_p > 0:
            probabilities[probabilities < config.min_p * probabilities.max(axis=1, keepdims=True)] = 0
        return probabilities


def log_softmax(logits: NDArray[np.floating]) -> Numbers:
    """The logarithms of the probabilities (B, V) that logits stand for, in nats."""
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def _ranked(probabilities: Numbers) -> Ids:
    return np.argsort(-probabilities, axis=1, kind="stable")  # of equals the lower id comes first


def _forbidden_ids(config: SampleConfig, symbols: str) -> NDArray[np.bool_]:
    """What is not to be written: unknown characters, and those that the user doesn't want; but ends are no matter."""
    if not config.allow and not config.forbid:
        return np.array([symbol == UNKNOWN for symbol in symbols])
    allow, forbid = (compile_charset(name, getattr(config, name)) for name in ("allow", "forbid"))

    def is_unwanted(symbol: str) -> bool:
        return symbol == UNKNOWN or bool((config.allow and not allow.match(symbol)) or forbid.match(symbol))

    forbidden = [symbol != BOUNDARY and is_unwanted(symbol) for symbol in symbols]
    if sum(forbidden) == len(symbols) - (BOUNDARY in symbols):
        name = "allow" if config.allow else "forbid"
        reason = f"leaves no character that the model can write ({getattr(config, name)!r})"
        raise SettingError(name, reason, "charrnn info shows those that it knows")
    return np.array(forbidden)
