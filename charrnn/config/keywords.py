"""The settings as typed keywords of Python functions, for type checkers and editors.

The keywords are the fields of `Overrides` and `SampleConfig`. A test checks this.
"""

import inspect
from collections.abc import Callable
from dataclasses import fields
from functools import wraps
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar, cast, get_type_hints

from charrnn.config import (
    Cell,
    Device,
    Documents,
    Engine,
    Newlines,
    Normalize,
    Precision,
    SamplePrecision,
    Temperature,
    Unit,
    Unknown,
)
from charrnn.suggestions import did_you_mean

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Function = TypeVar("Function", bound=Callable[..., Any])


class TrainKeywords(TypedDict, total=False):
    """The fields of `Overrides` as keywords of `charrnn.train`, without those for starting from another model."""

    unit: Unit | None
    encoding: str | None
    newlines: Newlines | None
    normalize: Normalize | None
    min_count: int | None
    documents: Documents | None
    separator: str | None
    minutes: float | None
    epochs: float | None
    steps: int | None
    cell: Cell | None
    layers: int | None
    hidden: int | None
    embedding: int | None
    dropout: float | None
    batch_size: int | None
    seq_length: int | None
    learning_rate: float | None
    warmup: float | None
    weight_decay: float | None
    grad_clip: float | None
    validation: float | None
    evaluations: int | None
    patience: int | None
    seed: int | None
    precision: Precision | None
    engine: Engine | None
    device: Device | None
    threads: int | None


class SampleKeywords(TypedDict, total=False):
    """The fields of `SampleConfig` as keywords, without ``length``: its default depends on the model."""

    temperature: Temperature
    lines: int
    stop: str | tuple[str, ...] | None
    keep_stop: bool
    top_k: int
    top_p: float
    min_p: float
    repeat_penalty: float
    repeat_window: int
    allow: str
    forbid: str
    logprobs: int | None
    seed: int | None
    unknown: Unknown
    precision: SamplePrecision
    utf8: bool


def expand_keywords(keywords: type, config: type["DataclassInstance"]) -> Callable[[Function], Function]:
    """Return a decorator that replaces ``**settings`` in the signature with its keywords, for `help` and notebooks.

    The decorated function raises TypeError for an unknown keyword, with a suggestion. Type checkers and editors read
    the annotation ``Unpack[keywords]`` instead.

    Args:
        keywords: A TypedDict with the keywords.
        config: A dataclass with the default of each keyword.
    """

    def decorate(function: Function) -> Function:
        signature = inspect.signature(function)
        explicit = [param for param in signature.parameters.values() if param.kind is not param.VAR_KEYWORD]
        default = {field.name: field.default for field in fields(config)}
        expanded = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default[name], annotation=hint)
            for name, hint in get_type_hints(keywords).items()
        ]
        names = [parameter.name for parameter in (*explicit, *expanded)]

        @wraps(function)
        def checked(*args: Any, **kwargs: Any) -> Any:
            for name in kwargs:
                if name not in names:
                    reason = f"{function.__name__}() got an unexpected keyword argument {name!r}"
                    raise TypeError(reason + did_you_mean(name, names))
            return function(*args, **kwargs)

        checked.__signature__ = signature.replace(parameters=[*explicit, *expanded])  # type: ignore[attr-defined]
        return cast(Function, checked)

    return decorate
