"""The weights of a network for another vocabulary: what belongs to a character stays with it, wherever it stands.

Knows nothing about torch or files.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from charrnn.data.vocabulary import Vocabulary

Tensors = Mapping[str, NDArray[np.float32]]


def transfer(
    trained: Tensors, known: Vocabulary, initial: Tensors, wanted: Vocabulary
) -> dict[str, NDArray[np.float32]]:
    """Moves trained weights into a network of the same shape but for its vocabulary.

    Args:
        trained: named and shaped as `ModelConfig.tensor_shapes` says for ``known``.
        known: the characters that they were trained on.
        initial: first weights for ``wanted``; those of characters that are new stay.
        wanted: the characters of the new network.

    Returns:
        Weights named and shaped as ``initial``.
    """
    axes = {"output.weight": 0, "output.bias": 0}  # along which the characters lie
    axes |= {"embedding.weight": 0} if "embedding.weight" in initial else {"layers.0.weight_ih": 1}
    shared = "".join(symbol for symbol in wanted.symbols if symbol in known)
    source, target = known.ids_of(shared), wanted.ids_of(shared)
    moved = {}
    for name, array in initial.items():
        if name not in axes:
            moved[name] = trained[name].copy()
            continue
        moved[name] = array.copy()
        np.moveaxis(moved[name], axes[name], 0)[target] = np.moveaxis(trained[name], axes[name], 0)[source]
    return moved
