"""Train a small recurrent network on a text, character by character, and write new text in its style.

The names below are loaded when they are first used, so importing charrnn costs nothing; torch comes in with `train`
and `score` alone.
"""

from importlib import import_module
from typing import TYPE_CHECKING

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

if TYPE_CHECKING:
    from charrnn.api import Model, Score, load, sample, score, train
    from charrnn.errors import CharrnnError


def __getattr__(name: str) -> object:
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
