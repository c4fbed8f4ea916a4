"""Copies trained weights to a network with another vocabulary.

The rows and columns that belong to a character are copied to the positions of that character in the new vocabulary.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from charrnn.data.vocabulary import Vocabulary

Tensors = Mapping[str, NDArray[np.float32]]


def transfer(
    trained: Tensors, old_vocabulary: Vocabulary, initial: Tensors, new_vocabulary: Vocabulary
) -> dict[str, NDArray[np.float32]]:
    """Return the weights of a network for a new vocabulary, taken from a trained network of the same size.

    Args:
        trained: The trained weights, with the names and shapes of `ModelConfig.tensor_shapes`.
        old_vocabulary: The vocabulary of the trained network.
        initial: Initial weights of the new network. They are kept for characters that the old vocabulary lacks.
        new_vocabulary: The vocabulary of the new network.

    Returns:
        Weights with the names and shapes of ``initial``.
    """
    axes = {"output.weight": 0, "output.bias": 0}  # the axis of each tensor that is indexed by characters
    axes |= {"embedding.weight": 0} if "embedding.weight" in initial else {"layers.0.weight_ih": 1}
    shared = "".join(symbol for symbol in new_vocabulary.symbols if symbol in old_vocabulary)
    source, target = old_vocabulary.ids_of(shared), new_vocabulary.ids_of(shared)
    weights = {}
    for name, array in initial.items():
        if name not in axes:
            weights[name] = trained[name].copy()
            continue
        weights[name] = array.copy()
        np.moveaxis(weights[name], axes[name], 0)[target] = np.moveaxis(trained[name], axes[name], 0)[source]
    return weights
