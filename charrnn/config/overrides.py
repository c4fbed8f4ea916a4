"""The settings of a run that the user chose, as one object.

Names, types, checks and options are the same as in ``config/__init__.py``. A test checks this.
"""
# ruff: noqa: RUF009 - setting() and override() make a field

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

from charrnn.config import (
    Cell,
    Device,
    Documents,
    Engine,
    ModelConfig,
    Newlines,
    Normalize,
    Precision,
    ReadConfig,
    TrainConfig,
    Unit,
    check_budget,
    check_bytes,
    check_documents,
)
from charrnn.config.settings import Option, check, override, setting

Config = TypeVar("Config", ReadConfig, ModelConfig, TrainConfig)


@dataclass(frozen=True, kw_only=True)
class Overrides:
    """The settings of a run that the user chose. None leaves a setting to the plan or to its default.

    Raises:
        SettingError: If a value is wrong, or two values exclude each other.
    """

    unit: Unit | None = override(ReadConfig)
    encoding: str | None = override(ReadConfig)
    newlines: Newlines | None = override(ReadConfig)
    normalize: Normalize | None = override(ReadConfig)
    min_count: int | None = override(ReadConfig)
    documents: Documents | None = override(ReadConfig)
    separator: str | None = override(ReadConfig)
    from_model: str | None = setting(
        None, option=Option("Start from the weights of a trained model.", "MODEL", flags=("--from",), group="Network")
    )
    freeze_vocabulary: bool | None = setting(
        None, option=Option("With --from: reject new characters.", group="Network")
    )
    minutes: float | None = override(TrainConfig)
    epochs: float | None = override(TrainConfig)
    steps: int | None = override(TrainConfig)
    cell: Cell | None = override(ModelConfig)
    layers: int | None = override(ModelConfig)
    hidden: int | None = override(ModelConfig)
    embedding: int | None = override(ModelConfig)
    dropout: float | None = override(ModelConfig)
    batch_size: int | None = override(TrainConfig)
    seq_length: int | None = override(TrainConfig)
    learning_rate: float | None = override(TrainConfig)
    warmup: float | None = override(TrainConfig)
    weight_decay: float | None = override(TrainConfig)
    grad_clip: float | None = override(TrainConfig)
    validation: float | None = override(TrainConfig)
    evaluations: int | None = override(TrainConfig)
    patience: int | None = override(TrainConfig)
    seed: int | None = override(TrainConfig)
    precision: Precision | None = override(TrainConfig)
    engine: Engine | None = override(TrainConfig)
    device: Device | None = override(TrainConfig)
    threads: int | None = override(TrainConfig)

    def __post_init__(self) -> None:
        check(self)
        check_documents(self.documents, self.separator)
        check_bytes(self.unit, self.encoding, self.normalize, self.min_count)
        check_budget(self.epochs, self.steps)

    def apply(self, config: Config) -> Config:
        """Return a copy of a config with the chosen settings.

        Raises:
            SettingError: If two settings exclude each other.
        """
        names = {field.name for field in fields(config)}
        return replace(config, **{name: value for name, value in self.chosen() if name in names})

    def chosen(self) -> Iterator[tuple[str, Any]]:
        """Yield the name and value of each chosen setting."""
        for field in fields(self):
            if (value := getattr(self, field.name)) is not None:
                yield field.name, value
