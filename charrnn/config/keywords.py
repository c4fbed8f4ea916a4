"""The settings as keywords of Python functions, which type checkers and editors know by name and type.

They are the fields of `Overrides` and `SampleConfig`, which a test holds.
"""

import inspect
from collections.abc import Callable
from dataclasses import fields
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar, get_type_hints

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

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Function = TypeVar("Function", bound=Callable[..., Any])


class TrainKeywords(TypedDict, total=False):
    """The fields of `Overrides` as keywords of `charrnn.train`, which starts from no other model."""

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
    """The fields of `SampleConfig` as keywords, but for the length, whose default is the model's."""

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
    """Show ``**settings: Unpack[keywords]`` as single keywords in the signature that `help` and notebooks read.

    Type checkers and editors know them from the annotation.

    Args:
        keywords: a TypedDict.
        config: has the default of each keyword.
    """

    def decorate(function: Function) -> Function:
        signature = inspect.signature(function)
        kept = [one for one in signature.parameters.values() if one.kind is not one.VAR_KEYWORD]
        default = {field.name: field.default for field in fields(config)}
        spelled = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default[name], annotation=hint)
            for name, hint in get_type_hints(keywords).items()
        ]
        function.__signature__ = signature.replace(parameters=[*kept, *spelled])  # type: ignore[attr-defined]
        return function

    return decorate
