"""One optimizer step: forward, loss, backward, clip, update.

On a CPU the streams of a batch are computed in fixed groups (``rnn/stream_groups.py``), whose gradients are added in
the order of their numbers. So a step gives the same weights, to the bit, with any number of threads.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from torch.nn.utils import clip_grad_norm_
from torch.optim.adamw import adamw

from charrnn.config import TrainConfig
from charrnn.data.dataloader import IGNORE_INDEX
from charrnn.rnn.state import State
from charrnn.rnn.stream_groups import stream_groups, torch_worker_pool
from charrnn.rnn.torch_rnn import CharRNN, PackedWeights, detach, plain_name
from charrnn.rnn.torch_scorer import autocast

BETAS = (0.9, 0.99)  # of AdamW's moving averages
_AVERAGING_POWER = 9  # the weights after step n count in their average as n ** (_AVERAGING_POWER - 1)
WARMUP_STEPS = 1  # steps before it is at its pace

_T = TypeVar("_T")
_Learned = tuple[Tensor, tuple[Tensor, ...], State]  # loss, gradients and the state after


class TrainStep:
    """A network with its optimizer (AdamW: Loshchilov & Hutter 2019).

    Args:
        network: what learns; moved to the device and set to the engine of ``config``.
        config: with device, precision, engine and threads decided.

    Raises:
        ImportError: the engine is native, and nothing can be compiled here.
    """

    def __init__(self, network: CharRNN, config: TrainConfig) -> None:
        self.network = network.to(config.device)
        self.network.native = config.engine == "native"
        self._config = config
        self._parameters: list[Tensor] = list(network.parameters())
        # AdamW as a function: the class loads torch's compiler, which takes longer to start than all else together.
        self._means = [torch.zeros_like(parameter) for parameter in self._parameters]
        self._squares = [torch.zeros_like(parameter) for parameter in self._parameters]
        self._smooth = [parameter.detach().clone() for parameter in self._parameters]
        self._fused_update = config.device != "mps"
        where = config.device if self._fused_update else "cpu"
        self._steps = [torch.zeros((), device=where) for _ in self._parameters]
        self._workers = torch_worker_pool(config.threads if config.device == "cpu" else 1)
        self._autocast(self.network.compile_kernels)

    def step(
        self, number: int, inputs: NDArray[np.int64], targets: NDArray[np.int64], state: State, learning_rate: float
    ) -> tuple[float, State]:
        """Learn from one chunk.

        Args:
            number: of the step, from 0; dropout's random numbers follow from it and the seed.
            inputs: ids (T, B).
            targets: the ids that follow (T, B); padding counts nothing.
            state: the state before the chunk.
            learning_rate: of this step.

        Returns:
            The mean loss in nats per character before the update, and the state after the chunk, detached and in
            float32. A loss that is no finite number changes nothing.
        """
        num_targets, batch = int((targets != IGNORE_INDEX).sum()), inputs.shape[1]
        groups = stream_groups(batch) if self._config.device == "cpu" else [slice(0, batch)]
        packed = self._workers.run([partial(self._autocast, pack) for pack in self.network.packing()])

        def learn(group: int) -> _Learned:
            streams = groups[group]
            dropout = torch.Generator(self._config.device).manual_seed(_random_seed(self._config.seed, number, group))
            loss, after = self._loss(inputs[:, streams], targets[:, streams], state.select(streams), dropout, packed)
            loss = loss / num_targets
            return loss.detach(), torch.autograd.grad(loss, self._parameters), detach(after)

        parts = self._workers.run([partial(learn, group) for group in range(len(groups))])
        nats = float(sum(loss for loss, _, _ in parts))
        if not np.isfinite(nats):
            return nats, state
        gradients = [gradients for _, gradients, _ in parts]
        self._workers.run([partial(self._update, number, learning_rate, gradients)])
        return nats, State.join([after for _, _, after in parts])

    def averages(self) -> dict[str, NDArray[np.float32]]:
        """A copy of AdamW's moving averages of each gradient, ``mean.NAME``, and of its square, ``square.NAME``.

        And of the weights' own, ``average.NAME``, which is the better model until the learning rate has come down.
        It is polynomially decaying (Shamir & Zhang 2013): those in it are a tenth of the run old in the mean.
        """
        return {name: average.cpu().numpy().copy() for name, average in self._averages()}

    def load_averages(self, averages: Mapping[str, NDArray[np.float32]], steps: int) -> None:
        """Takes over what `averages` gave after so many steps."""
        for name, average in self._averages():
            average.copy_(torch.from_numpy(averages[name]))
        for step in self._steps:
            step.fill_(steps)

    def init_average(self) -> None:
        """Has the average begin with the weights as they are, before the first step."""
        for average, parameter in zip(self._smooth, self._parameters, strict=True):
            average.copy_(parameter.detach())

    def _averages(self) -> Iterator[tuple[str, Tensor]]:
        for kind, averages in (("mean", self._means), ("square", self._squares), ("average", self._smooth)):
            for (name, _), average in zip(self.network.named_parameters(), averages, strict=True):
                yield f"{kind}.{plain_name(name)}", average

    def _loss(
        self,
        inputs: NDArray[np.int64],
        targets: NDArray[np.int64],
        state: State,
        dropout: torch.Generator,
        packed: Sequence[PackedWeights],
    ) -> tuple[Tensor, State]:
        """Return the sum of the losses of some streams, and the state after."""
        config = self._config
        with autocast(config.device, config.precision):
            hidden, after = self.network.read(self._tensor(inputs), state, dropout, packed=packed)
            logits = self.network.output(hidden).float()
        wanted = self._tensor(targets).flatten()
        return functional.cross_entropy(
            logits.flatten(0, 1), wanted, ignore_index=IGNORE_INDEX, reduction="sum"
        ), after

    def _autocast(self, function: Callable[[], _T]) -> _T:
        with autocast(self._config.device, self._config.precision):  # a setting of each thread
            return function()

    def _update(self, number: int, learning_rate: float, of_groups: Sequence[Sequence[Tensor]]) -> None:
        """Take the optimizer step along the sum of the groups' gradients, added in the order of the groups."""
        gradients = [sum(same[1:], start=same[0]) for same in zip(*of_groups, strict=True)]
        for parameter, gradient in zip(self._parameters, gradients, strict=True):
            parameter.grad = gradient
        if self._config.grad_clip:
            clip_grad_norm_(self._parameters, self._config.grad_clip)
        with torch.no_grad():
            adamw(
                self._parameters,
                list(gradients),
                self._means,
                self._squares,
                max_exp_avg_sqs=[],
                state_steps=self._steps,
                fused=self._fused_update,
                amsgrad=False,
                beta1=BETAS[0],
                beta2=BETAS[1],
                lr=learning_rate,
                weight_decay=self._config.weight_decay,
                eps=1e-8,
                maximize=False,
            )
        self._average(number + 1)

    def _average(self, steps: int) -> None:
        """Takes the weights into their average, each time that the steps taken are half a per cent more or so.

        That is often enough for what is a tenth of the run old, and costs nothing that could be measured.
        """
        if steps % _stride(steps):
            return
        before = steps - _stride(steps - 1)
        share = 1 - (before / steps) ** _AVERAGING_POWER
        with torch.no_grad():
            for average, parameter in zip(self._smooth, self._parameters, strict=True):
                average.lerp_(parameter, share)

    def _tensor(self, ids: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(ids).to(self._config.device)


def _stride(steps: int) -> int:
    """A power of two, between a 128th and a 256th of the steps, or 1."""
    return 1 << max(0, steps.bit_length() - 8)


def _random_seed(*numbers: int) -> int:
    """One seed from several numbers, as good as independent of the seeds from others."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))
