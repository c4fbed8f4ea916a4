"""Dynamic evaluation: a network that keeps learning while it reads (Krause et al. 2018).

Each chunk is predicted first and learned from afterwards, so that no figure knows what it measures. What comes out is
another model's figure, one that has learned from the text before; it is never mixed with the static one.
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
RATE = 2e-3  # of the update; tried on C code (1.24 to 1.00 nats) and verse (1.86 to 1.85), whose best is a half of it
DECAY = 2e-2  # by which weights return to what they were, at each update
_LEAST = 1e-3  # of the root mean square of a gradient, as a share of the mean one


def learning_surprisals(
    model: Checkpoint, ids: TokenStore, device: str = "cpu", on_progress: ProgressCallback = lambda read: None
) -> Iterator[NDArray[np.float64]]:
    """Nats of each prediction of a text, some at a time, by a network that learns from those before.

    A weight w becomes ``v = w - RATE g / r`` after each chunk, and then ``v + DECAY (w_0 - v)``, where g is its
    gradient, r the root of the mean of g² so far, and w_0 what it was: Krause's RMS rule with the statistics of this
    text, as far as it was read, instead of the training text's.

    Args:
        model: the model, which stays as it is.
        ids: the text (n,), n >= 2.
        device: that computes; of a processor one thread, for one stream is not worth more.
        on_progress: told every moment how many characters were read since; may raise, to break off.
    """
    vocabulary = model.vocabulary
    network = CharRNN(model.model_config, len(vocabulary), vocabulary.boundary_id).to(device)
    network.load_tensors(model.tensors)
    torch.set_num_threads(1)
    state, weights = network.zero_state(1), list(network.parameters())
    first = [weight.detach().clone() for weight in weights]
    squares = [torch.zeros_like(weight) for weight in weights]
    for count, begin in enumerate(range(0, len(ids) - 1, CHUNK), 1):
        symbols = ids.take(np.arange(begin, min(begin + CHUNK + 1, len(ids)))).astype(np.int64)
        read = torch.from_numpy(symbols).to(device)
        logits, after = network(read[:-1, None], state)
        losses = functional.cross_entropy(logits[:, 0].float(), read[1:], reduction="none")  # (T,)
        grads = torch.autograd.grad(losses.mean(), weights)
        state = detach(after)
        with torch.no_grad():
            for weight, grad, square, origin in zip(weights, grads, squares, first, strict=True):
                square.addcmul_(grad, grad)
                root = (square / count).sqrt_()
                weight.add_(grad / (root + _LEAST * root.mean() + 1e-12), alpha=-RATE).lerp_(origin, DECAY)
        on_progress(len(losses))
        yield losses.detach().double().cpu().numpy()
