"""One optimizer step: forward pass, loss, backward pass, gradient clipping, AdamW update.

On a CPU, the streams of a batch are computed in fixed groups (``rnn/stream_groups.py``). The gradients of the groups
are always added in the same order, so any number of threads gives the same weights, bit for bit.
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
from charrnn.training.trainer_state import AVERAGES

BETAS = (0.9, 0.99)  # decay rates of AdamW's moving averages
_AVERAGING_POWER = 9  # the average weights the parameters after step n by n ** (_AVERAGING_POWER - 1)
WARMUP_STEPS = 1  # slow steps at the start, which timings exclude

_T = TypeVar("_T")
_GroupResult = tuple[Tensor, tuple[Tensor, ...], State]  # loss, gradients, state after the chunk


class TrainStep:
    """Training step of a network, with the AdamW optimizer (Loshchilov & Hutter 2019).

    Args:
        network: Network to train. It is moved to the device and set to the engine of ``config``.
        config: Training settings with device, precision, engine and threads decided.

    Raises:
        ImportError: If the engine is native, and the kernels cannot be compiled on this machine.
    """

    def __init__(self, network: CharRNN, config: TrainConfig) -> None:
        self.network = network.to(config.device)
        self.network.native = config.engine == "native"
        self._config = config
        self._parameters: list[Tensor] = list(network.parameters())
        # AdamW is used as a function, because the class imports torch's compiler, which takes seconds.
        self._means = [torch.zeros_like(parameter) for parameter in self._parameters]
        self._squares = [torch.zeros_like(parameter) for parameter in self._parameters]
        self._average_weights = [parameter.detach().clone() for parameter in self._parameters]
        self._fused_update = config.device != "mps"
        step_device = config.device if self._fused_update else "cpu"
        self._steps = [torch.zeros((), device=step_device) for _ in self._parameters]
        self._workers = torch_worker_pool(config.threads if config.device == "cpu" else 1)
        self._with_autocast(self.network.compile_kernels)

    def try_layers(self) -> None:
        """Run the network forward and backward on one character.

        Raises:
            RuntimeError: If torch cannot compute the layers in this precision.
        """
        first = torch.zeros(1, 1, dtype=torch.long, device=self._config.device)
        logits, _ = self._with_autocast(lambda: self.network(first, self.network.zero_state(1)))
        torch.autograd.grad(logits.sum(), self._parameters)

    def step(
        self, number: int, inputs: NDArray[np.int64], targets: NDArray[np.int64], state: State, learning_rate: float
    ) -> tuple[float, State]:
        """Update the weights on one chunk.

        Args:
            number: Number of the step, from 0. It determines the random numbers of dropout, together with the seed.
            inputs: Ids (T, B).
            targets: Next ids (T, B), `IGNORE_INDEX` for padding.
            state: Recurrent state before the chunk.
            learning_rate: Learning rate of this step.

        Returns:
            The mean loss in nats per character before the update, and the recurrent state after the chunk, detached
            and in float32. If the loss is infinite or NaN, nothing changes.
        """
        num_targets, batch_size = int((targets != IGNORE_INDEX).sum()), inputs.shape[1]
        groups = stream_groups(batch_size) if self._config.device == "cpu" else [slice(0, batch_size)]
        packed = self._workers.run([partial(self._with_autocast, pack) for pack in self.network.packing()])

        def compute_gradients(group: int) -> _GroupResult:
            streams = groups[group]
            dropout = torch.Generator(self._config.device).manual_seed(_random_seed(self._config.seed, number, group))
            loss, after = self._loss(inputs[:, streams], targets[:, streams], state.select(streams), dropout, packed)
            loss = loss / num_targets
            return loss.detach(), torch.autograd.grad(loss, self._parameters), detach(after)

        results = self._workers.run([partial(compute_gradients, group) for group in range(len(groups))])
        nats = float(sum(loss for loss, _, _ in results))
        if not np.isfinite(nats):
            return nats, state
        gradients = [gradients for _, gradients, _ in results]
        self._workers.run([partial(self._update, number, learning_rate, gradients)])
        return nats, State.join([after for _, _, after in results])

    def averages(self) -> dict[str, NDArray[np.float32]]:
        """Return copies of the moving averages of the optimizer and of the averaged weights.

        ``mean.NAME`` and ``square.NAME`` are AdamW's averages of a gradient and of its square. ``average.NAME`` are
        the averaged weights. They predict better than the latest weights until the learning rate is low.
        The average decays polynomially (Shamir & Zhang 2013). The mean age of its weights is a tenth of the run.
        """
        return {name: average.cpu().numpy().copy() for name, average in self._named_averages()}

    def load_averages(self, averages: Mapping[str, NDArray[np.float32]], steps: int) -> None:
        """Restore the result of `averages` after a number of steps."""
        for name, average in self._named_averages():
            average.copy_(torch.from_numpy(averages[name]))
        for step in self._steps:
            step.fill_(steps)

    def init_average(self) -> None:
        """Start the average from the current weights, before the first step."""
        for average, parameter in zip(self._average_weights, self._parameters, strict=True):
            average.copy_(parameter.detach())

    def _named_averages(self) -> Iterator[tuple[str, Tensor]]:
        for kind, averages in zip(AVERAGES, (self._means, self._squares, self._average_weights), strict=True):
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
        """Return the sum of the losses of some streams, and their recurrent state after the chunk."""
        config = self._config
        with autocast(config.device, config.precision):
            hidden, after = self.network.read(self._tensor(inputs), state, dropout, packed=packed)
            logits = self.network.output(hidden).float()
        loss = functional.cross_entropy(
            logits.flatten(0, 1), self._tensor(targets).flatten(), ignore_index=IGNORE_INDEX, reduction="sum"
        )
        return loss, after

    def _with_autocast(self, function: Callable[[], _T]) -> _T:
        with autocast(self._config.device, self._config.precision):  # applies to the current thread only
            return function()

    def _update(self, number: int, learning_rate: float, group_gradients: Sequence[Sequence[Tensor]]) -> None:
        """Add the gradients of the groups in their order, clip the sum, and take the optimizer step."""
        gradients = [sum(parts[1:], start=parts[0]) for parts in zip(*group_gradients, strict=True)]
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
        self._update_average(number + 1)

    def _update_average(self, steps: int) -> None:
        """Add the weights to their average, whenever the number of steps has grown by about half a per cent.

        This is often enough for an average over a tenth of the run, and takes no measurable time.
        """
        if steps % _stride(steps):
            return
        last_update = steps - _stride(steps - 1)
        share = 1 - (last_update / steps) ** _AVERAGING_POWER
        with torch.no_grad():
            for average, parameter in zip(self._average_weights, self._parameters, strict=True):
                average.lerp_(parameter, share)

    def _tensor(self, ids: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(ids).to(self._config.device)


def _stride(steps: int) -> int:
    """Return the steps between two updates of the average: a power of two, 1/256 to 1/128 of the steps, or 1."""
    return 1 << max(0, steps.bit_length() - 8)


def _random_seed(*numbers: int) -> int:
    """Return a seed that depends on all the numbers. Seeds of different numbers are practically independent."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))
