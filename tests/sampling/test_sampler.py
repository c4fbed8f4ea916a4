"""Temperature and filters, against a plain reference and against the definition."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charrnn.config import SampleConfig
from charrnn.sampling.sampler import Sampler

LOGITS = np.array([2.0, 1.0, 0.5, 0.0, -1.0, -3.0], dtype=np.float32)
numbers = st.floats(-30, 30, width=32)


def reference(logits: list[float], temperature: float, top_k: int, top_p: float, min_p: float) -> list[float]:
    """The same in plain Python, one character after the other."""
    shifted = [(logit - max(logits)) / temperature for logit in logits]
    weights = [math.exp(max(value, -745)) for value in shifted]
    p = {i: weight / sum(weights) for i, weight in enumerate(weights)}

    def again(kept: set[int]) -> dict[int, float]:
        total = sum(p[i] for i in kept)
        return {i: p[i] / total if i in kept else 0.0 for i in p}

    by_rank = sorted(p, key=lambda i: (-p[i], i))
    if top_k:
        p = again(set(by_rank[:top_k]))
    if top_p < 1:
        kept, reached = set(), 0.0
        for i in by_rank:
            kept.add(i)
            reached += p[i]
            if reached >= top_p:
                break
        p = again(kept)
    if min_p:
        p = again({i for i in p if p[i] >= min_p * max(p.values())})
    return [p[i] for i in sorted(p)]


@given(
    logits=st.lists(numbers, min_size=1, max_size=12),
    temperature=st.floats(0.3, 3),
    top_k=st.integers(0, 13),
    top_p=st.sampled_from([0.05, 0.31, 0.77, 0.93, 1.0]),
    min_p=st.sampled_from([0.0, 0.013, 0.11, 0.9, 1.0]),
)
def test_the_distribution_is_that_of_the_reference(
    logits: list[float], temperature: float, top_k: int, top_p: float, min_p: float
) -> None:
    config = SampleConfig(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    found = Sampler(config).distribution(np.array(logits, dtype=np.float32))
    np.testing.assert_allclose(found, reference(logits, temperature, top_k, top_p, min_p), atol=1e-9)


def test_top_p_counts_what_top_k_left_as_the_whole() -> None:
    logits = np.log(np.array([0.4, 0.3, 0.2, 0.1], dtype=np.float32))
    found = Sampler(SampleConfig(top_k=2, top_p=0.5)).distribution(logits)  # 4/7 and 3/7: the first reaches 0.5
    np.testing.assert_allclose(found, [1, 0, 0, 0])


@pytest.mark.parametrize(
    "settings", [{}, {"temperature": 0.5}, {"top_k": 3}, {"top_p": 0.8}, {"min_p": 0.2}, {"top_k": 4, "top_p": 0.9}]
)
def test_draws_follow_the_distribution(settings: dict[str, float]) -> None:
    draws = 40_000
    sampler = Sampler(SampleConfig(seed=0, **settings))  # type: ignore[arg-type]
    counts = np.bincount([sampler.choose(LOGITS) for _ in range(draws)], minlength=len(LOGITS))
    expected = sampler.distribution(LOGITS) * draws
    assert counts[expected == 0].sum() == 0
    possible = expected > 0
    chi_square = ((counts - expected)[possible] ** 2 / expected[possible]).sum()
    assert chi_square < 25  # five degrees of freedom exceed this once in 7,000 seeds


def test_temperature_zero_takes_the_likeliest() -> None:
    sampler = Sampler(SampleConfig(temperature=0))
    assert [sampler.choose(np.roll(LOGITS, shift)) for shift in range(4)] == [0, 1, 2, 3]


def test_a_tiny_temperature_is_nearly_greedy_and_breaks_nothing() -> None:
    assert Sampler(SampleConfig(temperature=1e-300, seed=0)).choose(LOGITS) == 0


def test_a_huge_temperature_is_nearly_uniform() -> None:
    found = Sampler(SampleConfig(temperature=1e300)).distribution(LOGITS)
    np.testing.assert_allclose(found, np.full(len(LOGITS), 1 / len(LOGITS)))


def test_the_same_seed_draws_the_same() -> None:
    one, same, other = (
        [sampler.choose(LOGITS) for _ in range(50)] for sampler in (Sampler(SampleConfig(seed=s)) for s in (4, 4, 5))
    )
    assert one == same != other


def test_without_a_seed_every_sampler_is_fresh() -> None:
    one, other = ([sampler.choose(LOGITS) for _ in range(50)] for sampler in (Sampler(SampleConfig()) for _ in "ab"))
    assert one != other


def test_a_draw_beyond_the_last_character_falls_on_one_that_has_a_probability() -> None:
    class Always:
        def random(self) -> float:
            return 1.0  # what a product rounded up comes to

    sampler = Sampler(SampleConfig(top_k=2))
    sampler._random = Always()  # type: ignore[assignment]
    assert sampler.choose(LOGITS) == 1
