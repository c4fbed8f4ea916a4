"""Models that measure: by name, and with the network that is done soonest."""

from charrnn import checkpoint
from charrnn.checkpoint import Checkpoint
from charrnn.cli import options
from charrnn.config import TrainConfig
from charrnn.evaluation.meter import Reader
from charrnn.evaluation.thrifty import Thrifty


def load(model: str) -> tuple[str, Checkpoint]:
    """The name of a model, and what it is.

    Raises:
        ModelFileError: there is none, or it is damaged.
    """
    path = checkpoint.find(model)
    return path.name.removesuffix(checkpoint.SUFFIX), checkpoint.load(path)


def reader(contents: Checkpoint, expected: int, device: str | None, threads: int | None) -> Reader:
    """The network of a model.

    Args:
        contents: the model.
        expected: characters that it will read, as far as that is known.
        device: as the user says; what is not the processor is used at once.
        threads: of torch, as the user says.

    Raises:
        SettingError: there is no such device here.
    """
    config = TrainConfig(**options.given(device=device, threads=threads))

    def fast() -> Reader:
        from charrnn.evaluation.reader import torch_reader
        from charrnn.training.machine import Machine

        return torch_reader(contents, Machine(config).device)

    return Thrifty(contents, fast, expected) if config.device in ("auto", "cpu") else fast()
