"""One optimizer step: forward, loss, backward, clip, update.

The streams of a batch know nothing of each other but the weights. So they are dealt to shards that run side by side,
each forward and backward on a processor core of its own, and meet only where their gradients are added up: no
operation waits for a slower core, as it does where each is divided among all cores. Knows nothing about texts,
budgets or evaluation; the trainer feeds it and ``machine.py`` times it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from torch.nn.utils import clip_grad_norm_
from torch.optim.adamw import adamw

from charrnn.config import Precision, TrainConfig
from charrnn.data.dataloader import IGNORED
from charrnn.rnn.torch_rnn import CharRNN, State, detach, plain_name
from charrnn.training.cuda_graphs import WARM_UP, Captured

_BETAS = (0.9, 0.99)  # of AdamW's moving averages
_TOWARDS_LATE = 9  # the weights after step n count in their average as n ** (_TOWARDS_LATE - 1)
_LARGE = 500_000  # parameters from which laying them out takes longer than to wake other threads for a part of it

_T = TypeVar("_T")
_Learned = tuple[Tensor, tuple[Tensor, ...], State]  # loss, gradients and the state after


def autocast(device: str, precision: Precision) -> AbstractContextManager[None]:
    """Matrix products in bfloat16 where ``precision`` asks for it; weights, losses and sums stay fp32."""
    return torch.autocast(device, dtype=torch.bfloat16, enabled=precision == "bf16")


class TrainStep:
    """A network with its optimizer (AdamW: Loshchilov & Hutter 2019).

    Args:
        network: what learns; moved to the device and set to the engine of ``config``.
        config: with device, precision, engine and threads decided. The stock layers share out each of their
            operations among threads; ours leave a shard of the streams to each thread.
    """

    def __init__(self, network: CharRNN, config: TrainConfig) -> None:
        self.network = network.to(config.device)
        self.network.fused = config.engine == "fused"
        self._config = config
        self._output: list[Tensor] = list(network.output.parameters())
        self._parameters: list[Tensor] = list(network.parameters())
        self._recurrent = self._parameters[: -len(self._output)]  # the output's come last
        # AdamW as a function: the class loads torch's compiler, which takes longer to start than all else together.
        self._means = [torch.zeros_like(parameter) for parameter in self._parameters]
        self._squares = [torch.zeros_like(parameter) for parameter in self._parameters]
        self._smooth = [parameter.detach().clone() for parameter in self._parameters]
        self._fused_update = config.device != "mps"
        where = config.device if self._fused_update else "cpu"
        self._steps = [torch.zeros((), device=where) for _ in self._parameters]
        self._shards = min(config.threads, config.batch_size) if config.engine == "fused" else 1
        self._loss = Captured(config.device == "cuda")
        self._update = Captured(config.device == "cuda")
        self._large = sum(parameter.numel() for parameter in self._parameters) >= _LARGE
        self._others = ThreadPoolExecutor(self._shards - 1, initializer=_fast_zeros) if self._shards > 1 else None

    def step(
        self, number: int, inputs: NDArray[np.int64], targets: NDArray[np.int64], state: State, learning_rate: float
    ) -> tuple[float, State]:
        """Learns from one chunk.

        Args:
            number: of the step, from 0; dropout's randomness follows from it and the seed.
            inputs: ids (T, B).
            targets: the ids that follow (T, B); padding counts nothing.
            state: the state before the chunk.
            learning_rate: of this step.

        Returns:
            The mean loss in nats per character before the update, and the state after the chunk, detached and in
            fp32. A loss that is no finite number changes nothing.
        """
        predictions = int((targets != IGNORED).sum())

        def learn(shard: int, streams: slice, laid: Sequence[NDArray[Any]]) -> _Learned:
            dropout = torch.Generator(self._config.device).manual_seed(_random_seed(self._config.seed, number, shard))
            before = tuple(tuple(part[streams] for part in layer) for layer in state)
            with autocast(self._config.device, self._config.precision):
                hidden, after = self.network.read(self._tensor(inputs[:, streams]), before, dropout, laid=laid)
            wanted = self._tensor(targets[:, streams])
            loss, of_hidden, *last = self._loss(self._loss_and_gradients, hidden, wanted, predictions)
            return loss, (*torch.autograd.grad(hidden, self._recurrent, of_hidden), *last), detach(after)

        def lay(part: Callable[[], NDArray[Any]]) -> NDArray[Any]:
            with autocast(self._config.device, self._config.precision):  # holds for the thread that says so
                return part()

        with _one_thread(self._others is not None):
            laying = [partial(lay, part) for part in self.network.laying()]
            laid = self._side_by_side(laying) if self._large else [part() for part in laying]
            edges = [inputs.shape[1] * shard // self._shards for shard in range(self._shards + 1)]
            shards = enumerate(slice(*pair) for pair in pairwise(edges))
            parts = self._side_by_side([partial(learn, shard, streams, laid) for shard, streams in shards])
            nats = float(sum(loss for loss, _, _ in parts))
            if not np.isfinite(nats):
                return nats, state
            total = [sum(same[1:], start=same[0]) for same in zip(*(grads for _, grads, _ in parts), strict=True)]
            self._update(self._descend, learning_rate, *total)
            self._average(number + 1)
        return nats, _join([after for _, _, after in parts])

    @property
    def warm_up(self) -> int:
        """Steps before it is at its pace."""
        return WARM_UP + 2 if self._config.device == "cuda" else 1  # a capture gives memory back, to be taken anew

    def averages(self) -> dict[str, NDArray[np.float32]]:
        """A copy of AdamW's moving averages of each gradient, ``mean.NAME``, and of its square, ``square.NAME``.

        And of the weights' own, ``average.NAME``, which is the better model until the learning rate has come down.
        It is polynomially decaying (Shamir & Zhang 2013): those in it are a tenth of the run old in the mean.
        """
        return {name: average.cpu().numpy().copy() for name, average in self._averages()}

    def restore(self, averages: Mapping[str, NDArray[np.float32]], steps: int) -> None:
        """Takes over what `averages` gave after so many steps."""
        for name, average in self._averages():
            average.copy_(torch.from_numpy(averages[name]))
        for step in self._steps:
            step.fill_(steps)

    def start_average(self) -> None:
        """Has the average begin with the weights as they are, before the first step."""
        for average, parameter in zip(self._smooth, self._parameters, strict=True):
            average.copy_(parameter.detach())

    def _averages(self) -> Iterator[tuple[str, Tensor]]:
        for kind, averages in (("mean", self._means), ("square", self._squares), ("average", self._smooth)):
            for (name, _), average in zip(self.network.named_parameters(), averages, strict=True):
                yield f"{kind}.{plain_name(name)}", average

    def _side_by_side(self, works: Sequence[Callable[[], _T]]) -> list[_T]:
        """What the works give, dealt one by one to this thread and the others."""
        if self._others is None:
            return [work() for work in works]
        hands = [works[first :: self._shards] for first in range(min(self._shards, len(works)))]

        def in_turn(works: Sequence[Callable[[], _T]]) -> list[_T]:
            torch.set_num_threads(1)  # holds for the thread that says so
            return [work() for work in works]

        later = [self._others.submit(in_turn, hand) for hand in hands[1:]]
        done = [in_turn(hands[0]), *(future.result() for future in later)]
        return [done[place % len(hands)][place // len(hands)] for place in range(len(works))]

    def _loss_and_gradients(self, hidden: Tensor, targets: Tensor, predictions: float | Tensor) -> tuple[Tensor, ...]:
        """Loss of the last layer's outputs (T, B, H), and its gradients: of these and of the output's parameters."""
        config, hidden = self._config, hidden.detach().requires_grad_()
        with autocast(config.device, config.precision):
            logits = self.network.output(hidden).float()
        losses = functional.cross_entropy(
            logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="sum"
        )
        loss = losses / predictions
        return loss.detach(), *torch.autograd.grad(loss, [hidden, *self._output])

    def _descend(self, learning_rate: float | Tensor, *grads: Tensor) -> tuple[()]:
        """Takes the optimizer step along the gradients of all parameters, in their order."""
        for parameter, grad in zip(self._parameters, grads, strict=True):
            parameter.grad = grad
        if self._config.clip:
            clip_grad_norm_(self._parameters, self._config.clip)
        with torch.no_grad():
            adamw(
                self._parameters,
                list(grads),
                self._means,
                self._squares,
                max_exp_avg_sqs=[],
                state_steps=self._steps,
                fused=self._fused_update,
                amsgrad=False,
                beta1=_BETAS[0],
                beta2=_BETAS[1],
                lr=learning_rate,
                weight_decay=self._config.weight_decay,
                eps=1e-8,
                maximize=False,
            )
        return ()

    def _average(self, steps: int) -> None:
        """Takes the weights into their average, each time that the steps taken are half a per cent more or so.

        That is often enough for what is a tenth of the run old, and costs nothing that could be measured.
        """
        if steps % _stride(steps):
            return
        before = steps - _stride(steps - 1)
        share = 1 - (before / steps) ** _TOWARDS_LATE
        with torch.no_grad():
            for average, parameter in zip(self._smooth, self._parameters, strict=True):
                average.lerp_(parameter, share)

    def _tensor(self, ids: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(ids).to(self._config.device)


def _stride(steps: int) -> int:
    """A power of two, between a 128th and a 256th of the steps, or 1."""
    return 1 << max(0, steps.bit_length() - 8)


@contextmanager
def _one_thread(wanted: bool) -> Iterator[None]:
    """Leaves every operation of this thread undivided: no other thread is waited for, however busy the machine."""
    before = torch.get_num_threads()
    if wanted:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        if wanted:
            torch.set_num_threads(before)


def _join(states: list[State]) -> State:
    """The states of the shards as one of all streams."""
    if len(states) == 1:
        return states[0]
    return tuple(
        tuple(torch.cat(parts) for parts in zip(*layers, strict=True)) for layers in zip(*states, strict=True)
    )


def _fast_zeros() -> None:
    torch.set_flush_denormal(True)  # a setting of each thread


def _random_seed(*numbers: int) -> int:
    """One seed from several numbers, as good as independent of the seeds from others."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))
