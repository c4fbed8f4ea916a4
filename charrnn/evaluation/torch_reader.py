"""The network in torch as a `SurprisalMeter` has it: its lanes shared out among the processor's cores."""

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from charrnn.checkpoint import Checkpoint
from charrnn.evaluation.surprisal import Marks, Nats, Places, part_of
from charrnn.rnn.numpy_rnn import State, joined
from charrnn.rnn.torch_rnn import CharRNN
from charrnn.rnn.torch_rnn import State as Tensors


class TorchReader:
    """A network in torch; see `charrnn.evaluation.surprisal.Reader`.

    Args:
        network: on any device, with any engine; what our kernels compute is shared out among torch's threads.
    """

    def __init__(self, network: CharRNN) -> None:
        self._network, self._device = network, network.output.weight.device
        self.vocabulary_size, self.boundary = network.vocabulary_size, network.boundary
        self._shards = torch.get_num_threads() if network.fused and self._device.type == "cpu" else 1
        self._pool = ThreadPoolExecutor(self._shards, initializer=_one_thread) if self._shards > 1 else None

    def zero_state(self, streams: int) -> State:
        """The state of so many streams before their first symbol."""
        return _in_numpy(self._network.zero_state(streams))

    def read(self, inputs: Places, targets: Places, fresh: Marks, state: State) -> tuple[Nats, State]:
        """Reads T symbols of B streams, in the precision that torch is told to use."""
        kind = self._device.type
        lowered = torch.is_autocast_enabled(kind)  # which is a matter of each thread

        def step(streams: slice) -> tuple[Nats, State]:
            before = tuple(tuple(self._tensor(part) for part in layer) for layer in part_of(state, streams))
            with torch.no_grad(), torch.autocast(kind, torch.get_autocast_dtype(kind), enabled=lowered):
                logits, after = self._network(self._tensor(inputs[:, streams]), before, fresh=fresh[:, streams])
            wanted = self._tensor(targets[:, streams])
            loss = functional.cross_entropy(logits.float().flatten(0, 1), wanted.flatten(), reduction="none")
            return loss.view(wanted.shape).cpu().numpy(), _in_numpy(after)

        batch = inputs.shape[1]
        shards = min(self._shards, batch)
        if self._pool is None or shards < 2:
            return step(slice(0, batch))
        edges = [batch * shard // shards for shard in range(shards + 1)]
        parts = list(self._pool.map(step, (slice(*pair) for pair in pairwise(edges))))
        return np.concatenate([nats for nats, _ in parts], axis=1), joined([after for _, after in parts])

    def _tensor(self, array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self._device)


def torch_reader(contents: Checkpoint, device: str = "cpu") -> TorchReader:
    """The network of a model, with the engine that measures best here: our kernels, which know how to forget."""
    vocabulary = contents.vocabulary
    network = CharRNN(contents.model, len(vocabulary), vocabulary.boundary).to(device)
    network.load_tensors(contents.tensors)
    network.fused = device == "cpu"
    try:
        with torch.no_grad():
            network(torch.zeros(1, 1, dtype=torch.long, device=device), network.zero_state(1))
    except (RuntimeError, ImportError, OSError):  # where they cannot be compiled
        network.fused = False
    return TorchReader(network)


def _in_numpy(state: Tensors) -> State:
    return tuple(tuple(part.detach().float().cpu().numpy() for part in layer) for layer in state)


def _one_thread() -> None:
    torch.set_num_threads(1)  # holds for the thread that says so
