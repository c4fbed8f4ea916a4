"""Bits per character: how well a network predicts a text.

A text of n characters has n-1 predictions; the first character is only read. Losses are means per prediction, in
nats (natural logarithm) inside and in bits (nats / ln 2) for people.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from charrnn.model.network import CharRNN, State
from charrnn.text.ids import Ids

LANES = 64  # stretches of a text read side by side
LANE_LENGTH = 1024  # shorter ones would spend more on their run-up than they save
RUN_UP = 512  # characters before a lane from which its first state is guessed
CHUNK = 256  # time steps of one forward pass
MOST_LOGITS = 1 << 23  # numbers that come out of one forward pass; a large vocabulary gets shorter ones
TOLERANCE = 1e-5  # how far a state may be from the one it stands for
RESOLUTION = 1e-6  # nats per character; reading again what changes no lane by more would change no figure


@torch.no_grad()
def carried_nats(
    network: CharRNN,
    ids: Ids,
    tolerance: float = TOLERANCE,
    heartbeat: Callable[[], None] = lambda: None,
) -> float:
    """Mean nats per character of a text, the state carried from its first character to its last.

    One long stream would leave the machine idle. So the text is cut into lanes that are read side by side, each from
    a state guessed by a run-up over the characters before it. Once the lanes are read, the state in which each one
    ended is known, and a lane whose guess is off by more than ``tolerance`` from the end of the lane before is read
    again from there, until none is, or until that makes no difference any more: some units remember for ever what
    nobody needs. What comes out is the figure of the single stream, at many times its speed.

    Args:
        network: the network, on any device.
        ids: the text (n,), n >= 2.
        tolerance: the largest difference between a guessed and a true component of a state; infinity trusts the
            guesses, which is a little faster, and the only choice in bf16, where no two states agree.
        heartbeat: called every moment; may raise, to break off.
    """
    pairs = len(ids) - 1
    length = math.ceil(pairs / max(1, min(LANES, pairs // LANE_LENGTH)))
    starts = np.arange(0, pairs, length)
    states = [network.zero_state(1)]
    if len(starts) > 1:
        later = starts[1:] - RUN_UP
        states += _split(_read(network, ids, later, RUN_UP, network.zero_state(len(later)), heartbeat)[1])
    ends: list[State] = [()] * len(starts)
    sums = np.zeros(len(starts))
    wrong = list(range(len(starts)))
    while wrong:
        read, after = _read(network, ids, starts[wrong], length, _join([states[lane] for lane in wrong]), heartbeat)
        change = np.abs(sums[wrong] - read).max() / length  # of the first reading: more than any resolution
        for lane, total, end in zip(wrong, read, _split(after), strict=True):
            sums[lane], ends[lane] = total, end
        if change < RESOLUTION:
            break
        wrong = [lane for lane in range(1, len(starts)) if _distance(states[lane], ends[lane - 1]) > tolerance]
        for lane in wrong:
            states[lane] = ends[lane - 1]
    return float(sums.sum()) / pairs


@torch.no_grad()
def reset_nats(network: CharRNN, ids: Ids, reset: int) -> float:
    """Mean nats per character with a fresh state every ``reset`` characters, as transformers are quoted."""
    reset = min(reset, len(ids) - 1)
    starts = np.arange(0, len(ids) - 1, reset)
    abreast = max(1, min(LANES * CHUNK, MOST_LOGITS // network.vocabulary_size) // min(reset, CHUNK))
    total = 0.0
    for first in range(0, len(starts), abreast):
        some = starts[first : first + abreast]
        total += float(_read(network, ids, some, reset, network.zero_state(len(some)))[0].sum())
    return total / (len(ids) - 1)


def _read(
    network: CharRNN,
    ids: Ids,
    starts: NDArray[np.int64],
    length: int,
    state: State,
    heartbeat: Callable[[], None] = lambda: None,
) -> tuple[NDArray[np.float64], State]:
    """The summed nats of ``length`` predictions from each start, and the states after them.

    Predictions beyond the end of the text count nothing.
    """
    sums, pairs = np.zeros(len(starts)), len(ids) - 1  # fp64, which not every device has
    chunk = max(1, min(CHUNK, MOST_LOGITS // (len(starts) * network.vocabulary_size)))
    for offset in range(0, length, chunk):
        heartbeat()
        place = starts + np.arange(offset, min(offset + chunk, length))[:, None]  # (T, lanes)
        logits, state = network(_tensor(ids.take(np.minimum(place, pairs)), network), state)
        targets = _tensor(
            np.where(place < pairs, ids.take(np.minimum(place + 1, pairs)).astype(np.int64), -1), network
        )
        loss = functional.cross_entropy(
            logits.float().flatten(0, 1), targets.flatten(), reduction="none", ignore_index=-1
        )  # (T * lanes,)
        sums += loss.view(targets.shape).cpu().numpy().sum(0, dtype=np.float64)
    return sums, state


def _tensor(ids: NDArray[np.integer], network: CharRNN) -> Tensor:
    return torch.from_numpy(ids.astype(np.int64)).to(network.output.weight.device)


def _split(state: State) -> list[State]:
    """One state of B streams as B states of one stream."""
    lanes = len(state[0][0])
    return [tuple(tuple(part[lane : lane + 1] for part in layer) for layer in state) for lane in range(lanes)]


def _join(states: list[State]) -> State:
    """The inverse of `_split`."""
    return tuple(
        tuple(torch.cat([state[layer][part] for state in states]) for part in range(len(states[0][layer])))
        for layer in range(len(states[0]))
    )


def _distance(one: State, other: State) -> float:
    return max(
        float((left - right).abs().max())
        for layer, its in zip(one, other, strict=True)
        for left, right in zip(layer, its, strict=True)
    )
