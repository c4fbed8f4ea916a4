"""One optimizer step: forward, loss, backward, clip, update.

Knows nothing about texts, budgets or evaluation; the trainer feeds it and ``machine.py`` times it.
"""

from contextlib import AbstractContextManager

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional
from torch.nn.utils import clip_grad_norm_

from charrnn.config import Precision, TrainConfig
from charrnn.model.network import CharRNN, State, detach
from charrnn.text.streams import IGNORED


def autocast(device: str, precision: Precision) -> AbstractContextManager[None]:
    """Matrix products in bfloat16 where ``precision`` asks for it; weights, losses and sums stay fp32."""
    return torch.autocast(device, dtype=torch.bfloat16, enabled=precision == "bf16")


class Learner:
    """A network with its optimizer (AdamW: Loshchilov & Hutter 2019) and its source of dropout.

    Args:
        network: what learns; moved to ``device``.
        config: weight decay, clip and seed.
        device: "cpu", "cuda" or "mps".
        precision: "fp32" or "bf16".
    """

    def __init__(self, network: CharRNN, config: TrainConfig, device: str, precision: Precision) -> None:
        self.network = network.to(device)
        self.device = device
        self.precision = precision
        self._clip = config.clip
        self._parameters = list(network.parameters())
        self._dropout = torch.Generator(device).manual_seed(config.seed)
        self._optimizer = torch.optim.AdamW(
            self._parameters, betas=(0.9, 0.99), weight_decay=config.weight_decay, fused=device != "mps"
        )

    def step(
        self, inputs: NDArray[np.int64], targets: NDArray[np.int64], state: State, learning_rate: float
    ) -> tuple[float, State]:
        """Learns from one chunk.

        Args:
            inputs: ids (T, B).
            targets: the ids that follow (T, B); padding counts nothing.
            state: the state before the chunk.
            learning_rate: of this step.

        Returns:
            The mean loss in nats per character before the update, and the state after the chunk, detached. A loss
            that is no finite number changes nothing.
        """
        with autocast(self.device, self.precision):
            logits, after = self.network(torch.from_numpy(inputs).to(self.device), state, self._dropout)
        wanted = torch.from_numpy(targets).to(self.device).flatten()  # (T * B,)
        loss = functional.cross_entropy(logits.float().flatten(0, 1), wanted, ignore_index=IGNORED)
        nats = loss.item()
        if not np.isfinite(nats):
            return nats, state
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if self._clip:
            clip_grad_norm_(self._parameters, self._clip)
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        self._optimizer.step()
        return nats, detach(after)
