"""The network: ids and a state in, logits and the next state out.

The legend of shapes for the whole package: T time steps, B streams, V characters in the vocabulary, H hidden units,
L layers, E embedding size (0 = one-hot). Time comes first: ids (T, B), logits (T, B, V). Knows nothing about text,
files or training.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import repeat
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from charrnn.config import ModelConfig
from charrnn.rnn.layers import Fresh, LayerState, RecurrentLayer

State = tuple[LayerState, ...]  # one entry per layer; passed in, passed out, never kept


class CharRNN(nn.Module):
    """A stack of recurrent layers between characters and a distribution over the next character.

    Args:
        config: cell, layers, hidden, embedding, dropout.
        vocabulary_size: V.
        boundary: the id with which a document starts: reading it, a stream forgets all that was before.
    """

    def __init__(self, config: ModelConfig, vocabulary_size: int, boundary: int | None = None) -> None:
        super().__init__()
        self.config = config
        self.vocabulary_size = vocabulary_size
        self.boundary = boundary
        self.embedding = nn.Embedding(vocabulary_size, config.embedding) if config.embedding else None
        sizes = [config.embedding or vocabulary_size, *[config.hidden] * config.layers]
        self._stack = [RecurrentLayer(config.cell, inputs, config.hidden) for inputs in sizes[: config.layers]]
        self.layers = nn.ModuleList(self._stack)
        self.output = nn.Linear(config.hidden, vocabulary_size)

    def initialize(self, seed: int) -> None:
        """Draws the first weights; the same seed gives the same ones."""
        generator = torch.Generator().manual_seed(seed)
        input_scale = 1.0  # the norm of a one-hot vector
        if self.embedding is not None:
            nn.init.normal_(self.embedding.weight, generator=generator)
            input_scale = self.config.embedding**0.5
        for layer in self._stack:
            layer.initialize(input_scale, generator)
            input_scale = (2 * self.config.hidden) ** 0.5  # by trial: quieter than the characters below
        nn.init.xavier_uniform_(self.output.weight, generator=generator)
        nn.init.zeros_(self.output.bias)

    @property
    def fused(self) -> bool:
        """Whether our own kernels compute the layers (`RecurrentLayer.fused`)."""
        return self._stack[0].fused

    @fused.setter
    def fused(self, fused: bool) -> None:
        for layer in self._stack:
            layer.fused = fused

    def zero_state(self, batch_size: int) -> State:
        """The state of B streams before their first character."""
        return tuple(layer.zero_state(batch_size, self.output.weight) for layer in self._stack)

    def laying(self) -> list[Callable[[], NDArray[Any]]]:
        """How the weights are brought into the order of our kernels: parts of the work, to be done side by side.

        What they return, in this order, may be given to each `read` until the weights change.
        """
        return [partial(layer.lay, backward) for layer in self._stack for backward in (False, True) if self.fused]

    def forward(
        self, ids: Tensor, state: State, dropout: torch.Generator | None = None, fresh: Fresh = None
    ) -> tuple[Tensor, State]:
        """Logits of the next character (T, B, V), and the state after the last one; arguments as of `read`."""
        hidden, after = self.read(ids, state, dropout, fresh)
        return self.output(hidden), after

    def read(
        self,
        ids: Tensor,
        state: State,
        dropout: torch.Generator | None = None,
        fresh: Fresh = None,
        laid: Sequence[NDArray[Any]] = (),
    ) -> tuple[Tensor, State]:
        """Reads T characters of B streams.

        Args:
            ids: (T, B), integers below V.
            state: the state before them.
            dropout: the source of dropout's randomness while training; None silences nothing.
            fresh: (T, B), before which steps which streams forget all that was; if left out, before a boundary.
            laid: what `laying` led to, in its order, if several calls share it; our kernels else do it for each.

        Returns:
            What ``output`` takes for logits (T, B, H), and the state after the last character.
        """
        hidden, vectors = ids, self.embedding.weight if self.embedding is not None else None
        if fresh is None and self.boundary is not None:
            fresh = (ids == self.boundary).cpu().numpy()
        after = []
        pairs = zip(laid[::2], laid[1::2], strict=True) if laid else repeat(None, len(self._stack))
        for layer, before, pair in zip(self._stack, state, pairs, strict=True):
            hidden, layer_state = layer(hidden, before, vectors, fresh, pair)  # (T, B, H)
            vectors = None
            after.append(layer_state)
            if dropout is not None and self.config.dropout:
                hidden = _drop(hidden, self.config.dropout, dropout)
        return hidden, tuple(after)

    def tensors(self) -> dict[str, NDArray[np.float32]]:
        """A copy of the weights under their plain names, as `ModelConfig.tensor_shapes` lists them."""
        return {
            plain_name(name): value.detach().float().cpu().numpy().copy() for name, value in self.state_dict().items()
        }

    def load_tensors(self, tensors: Mapping[str, NDArray[np.float32]]) -> None:
        """Takes over weights that `tensors` gave."""
        self.load_state_dict({name: torch.from_numpy(tensors[plain_name(name)]) for name in self.state_dict()})


def detach(state: State) -> State:
    """The same state in fp32, without the graph that made it: gradients end here, values go on."""
    return tuple(tuple(part.detach().float() for part in layer) for layer in state)


def plain_name(name: str) -> str:
    """What a parameter is called in `ModelConfig.tensor_shapes`."""
    return name.replace(".stock.", ".").removesuffix("_l0")


def _drop(values: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Dropout between layers (Zaremba et al. 2014), the same units for all T steps (Gal & Ghahramani 2016).

    To silence other units at every step takes more random numbers than all else that a step draws, and by trial it
    teaches less.
    """
    drawn = torch.empty_like(values[0], dtype=torch.float32).uniform_(generator=generator)  # (B, H)
    return values * (drawn >= share).to(values.dtype).mul_(1 / (1 - share))
