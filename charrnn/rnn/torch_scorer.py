"""Surprisal of the characters of many streams, computed by torch on all cores or on a GPU."""

from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from charrnn.checkpoint import Checkpoint
from charrnn.config import Precision
from charrnn.rnn.state import State
from charrnn.rnn.stream_groups import stream_groups, torch_worker_pool
from charrnn.rnn.torch_rnn import CharRNN
from charrnn.rnn.worker_pool import check_threads


class TorchScorer:
    """A scorer that uses torch; see `charrnn.rnn.backend.Scorer`.

    Args:
        network: The network, on any device, with either engine.
        threads: The number of threads on a CPU.
        precision: The precision of matrix products, "fp32" or "bf16".
    """

    def __init__(self, network: CharRNN, threads: int = 1, precision: Precision = "fp32") -> None:
        self._network, self._device = network, network.output.weight.device
        self.vocab_size, self.boundary_id = network.vocab_size, network.boundary_id
        self._precision = precision
        self._workers = torch_worker_pool(threads) if self._device.type == "cpu" else None

    def zero_state(self, batch: int) -> State:
        """Return the zero state of B streams, in NumPy."""
        return _to_numpy(self._network.zero_state(batch))

    def score(
        self, inputs: NDArray[np.int64], targets: NDArray[np.int64], reset: NDArray[np.bool_], state: State
    ) -> tuple[NDArray[np.floating], State]:
        """Read T characters of B streams; see `charrnn.rnn.backend.Scorer.score`."""

        def score_streams(streams: slice) -> tuple[NDArray[np.floating], State]:
            before = state.select(streams).map(self._tensor)
            with torch.no_grad(), autocast(self._device.type, self._precision):
                logits, after = self._network(self._tensor(inputs[:, streams]), before, reset=reset[:, streams])
            target_ids = self._tensor(targets[:, streams])
            loss = functional.cross_entropy(logits.float().flatten(0, 1), target_ids.flatten(), reduction="none")
            return loss.view(target_ids.shape).cpu().numpy(), _to_numpy(after)

        if self._workers is None:
            return score_streams(slice(None))
        results = self._workers.run([partial(score_streams, streams) for streams in stream_groups(inputs.shape[1])])
        return np.concatenate([nats for nats, _ in results], axis=1), State.join([after for _, after in results])

    def _tensor(self, array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self._device)


def torch_scorer(model: Checkpoint, device: str = "cpu", threads: int = 1) -> TorchScorer:
    """Return a scorer for a model. On a CPU it uses the compiled kernels if possible.

    Raises:
        RuntimeError: If the threads cannot be started.
    """
    check_threads(2 * threads)  # of the worker pool and of torch
    vocabulary = model.vocabulary
    network = CharRNN(model.model_config, len(vocabulary), vocabulary.boundary_id).to(device)
    network.load_tensors(model.tensors)
    network.native = device == "cpu"
    try:
        with torch.no_grad():
            network(torch.zeros(1, 1, dtype=torch.long, device=device), network.zero_state(1))
    except ImportError:  # LLVM cannot compile for this processor
        network.native = False
    return TorchScorer(network, threads)


def autocast(device: str, precision: Precision) -> torch.autocast:
    """Return a context that sets the precision of matrix products. Weights, losses and sums stay float32."""
    return torch.autocast(device, dtype=torch.bfloat16, enabled=precision == "bf16")


def _to_numpy(state: State) -> State:
    return state.map(lambda tensor: tensor.detach().float().cpu().numpy())
