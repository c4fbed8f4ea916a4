"""Dynamic evaluation: a network that keeps learning while it reads a text (Krause et al. 2018).

Each chunk is predicted first and learned from afterwards, so that no prediction depends on its target. The result
measures an adapted model. It is always reported separately from the result of static evaluation.
"""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from charrnn.checkpoint import Checkpoint
from charrnn.data.token_store import TokenStore
from charrnn.evaluation.metrics import ProgressCallback
from charrnn.rnn.torch_rnn import CharRNN, detach

CHUNK = 64  # characters between two updates
RATE = 2e-3  # learning rate: C code 1.24 -> 1.00 nats, verse 1.86 -> 1.85 (half of it would be best for verse)
DECAY = 2e-2  # share of the difference from the original weights that each update removes
_MIN_ROOT = 1e-3  # added to each r (see below), as a share of the mean of r over the tensor


def dynamic_surprisals(
    model: Checkpoint, ids: TokenStore, device: str = "cpu", on_progress: ProgressCallback = lambda read: None
) -> Iterator[NDArray[np.float64]]:
    """Yield the surprisal of each prediction in nats, chunk by chunk, by a network that learns from earlier chunks.

    After each chunk, a weight w becomes ``v = w - RATE g / r`` and then ``v + DECAY (w_0 - v)``. Here g is the
    gradient of w, r the root of the mean of g² over the chunks so far, and w_0 the original weight. This is the RMS
    rule of Krause et al., except that r comes from the text being read, not from the training text.

    Args:
        model: The model, which is not changed.
        ids: The text, (n,), n >= 2.
        device: The device that computes. A CPU uses one thread, because a single stream gains nothing from more.
        on_progress: Called repeatedly with the number of characters read since its last call. It may raise an
            exception to abort.
    """
    vocabulary = model.vocabulary
    network = CharRNN(model.model_config, len(vocabulary), vocabulary.boundary_id).to(device)
    network.load_tensors(model.tensors)
    torch.set_num_threads(1)
    state, weights = network.zero_state(1), list(network.parameters())
    originals = [weight.detach().clone() for weight in weights]
    squares = [torch.zeros_like(weight) for weight in weights]
    for num_chunks, start in enumerate(range(0, len(ids) - 1, CHUNK), 1):
        chunk = ids.take(np.arange(start, min(start + CHUNK + 1, len(ids)))).astype(np.int64)
        symbols = torch.from_numpy(chunk).to(device)
        logits, after = network(symbols[:-1, None], state)
        losses = functional.cross_entropy(logits[:, 0].float(), symbols[1:], reduction="none")  # (T,)
        grads = torch.autograd.grad(losses.mean(), weights)
        state = detach(after)
        with torch.no_grad():
            for weight, grad, square, original in zip(weights, grads, squares, originals, strict=True):
                square.addcmul_(grad, grad)
                root = (square / num_chunks).sqrt_()
                weight.add_(grad / (root + _MIN_ROOT * root.mean() + 1e-12), alpha=-RATE).lerp_(original, DECAY)
        on_progress(len(losses))
        yield losses.detach().double().cpu().numpy()
