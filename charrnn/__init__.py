"""Train a small recurrent network on the characters of a text, and generate new text in the same style.

The public names are imported on first use, so ``import charrnn`` is fast. Only `train` and `score` import torch.
"""

from importlib import import_module

from charrnn.version import __version__

_MODULES = {
    "CharrnnError": "charrnn.errors",
    "Model": "charrnn.api",
    "Score": "charrnn.api",
    "load": "charrnn.api",
    "sample": "charrnn.api",
    "score": "charrnn.api",
    "train": "charrnn.api",
}
__all__ = ["CharrnnError", "Model", "Score", "__version__", "load", "sample", "score", "train"]

TYPE_CHECKING = False  # type checkers take this name as true; importing typing would delay the start
if TYPE_CHECKING:
    from charrnn.api import Model, Score, load, sample, score, train
    from charrnn.errors import CharrnnError


def __getattr__(name: str) -> object:
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
