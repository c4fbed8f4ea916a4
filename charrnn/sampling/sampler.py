"""From the logits of the next character to its id.

The settings act in this order: temperature, top-k, top-p, min-p. Each filter works on what the one before it left,
made a distribution again. At least the likeliest character always stays. Knows nothing about networks or text.
"""

import numpy as np
from numpy.typing import NDArray

from charrnn.config import SampleConfig

COLDEST = 1e-250  # temperature; any fp32 logit below the largest has no chance by then, and float64 no overflow yet


class Sampler:
    """Chooses ids from logits; one uniform random number each, none when greedy.

    Args:
        config: temperature, filters and seed.
    """

    def __init__(self, config: SampleConfig) -> None:
        self._config = config
        self._temperature = max(config.temperature, COLDEST)
        self._random = np.random.default_rng(config.seed)
        self._filters = config.top_k > 0 or config.top_p < 1 or config.min_p > 0

    def choose(self, logits: NDArray[np.float32]) -> int:
        """An id drawn from the distribution that `distribution` gives; the likeliest one at temperature 0."""
        if self._config.temperature == 0:
            return int(logits.argmax())
        cumulative = np.add.accumulate(self._weights(logits))
        drawn = int(cumulative.searchsorted(self._random.random() * cumulative[-1], side="right"))
        # the product above may round up to the total, beyond the last character that has a probability
        return drawn if drawn < len(cumulative) else int(cumulative.searchsorted(cumulative[-1]))

    def distribution(self, logits: NDArray[np.float32]) -> NDArray[np.float64]:
        """The probabilities (V,) of the ids, after temperature (above 0) and filters."""
        weights = self._weights(logits)
        return np.asarray(weights / weights.sum())

    def _weights(self, logits: NDArray[np.float32]) -> NDArray[np.float64]:
        """What the probabilities are proportional to: a choice needs no sum of 1."""
        weights = logits.astype(np.float64)
        weights -= weights[weights.argmax()]
        weights /= self._temperature
        np.exp(weights, out=weights)
        return self._filter(weights / weights.sum()) if self._filters else weights

    def _filter(self, probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
        config = self._config
        if 0 < config.top_k < len(probabilities):
            dropped = np.argsort(-probabilities, kind="stable")[config.top_k :]  # of equals the lower id stays
            probabilities[dropped] = 0
            probabilities /= probabilities.sum()
        if config.top_p < 1:
            order = np.argsort(-probabilities, kind="stable")
            reached = np.cumsum(probabilities[order])
            keep = int(reached.searchsorted(config.top_p)) + 1  # up to the one that crosses the threshold
            probabilities[order[keep:]] = 0
        if config.min_p > 0:
            probabilities[probabilities < config.min_p * probabilities.max()] = 0
        return probabilities
