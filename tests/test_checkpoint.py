"""The model file: a saved model is loaded unchanged, and an invalid file is rejected."""

import copy
import math
import os
import random
import stat
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

from charrnn import checkpoint
from charrnn.checkpoint import Checkpoint
from charrnn.config import Cell
from charrnn.data.vocabulary import Vocabulary
from charrnn.errors import FileError, ModelFileError
from charrnn.io import container
from tests.conftest import POSIX, make_checkpoint


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
@pytest.mark.parametrize("embedding", [0, 5])
def test_a_saved_model_is_loaded_unchanged(cell: Cell, embedding: int, tmp_path: Path) -> None:
    model = make_checkpoint(cell=cell, embedding=embedding, layers=2)
    checkpoint.save(tmp_path / "m.safetensors", model)
    loaded = checkpoint.load(tmp_path / "m.safetensors")
    assert (loaded.model_config, loaded.training) == (model.model_config, model.training)
    assert loaded.vocabulary.symbols == model.vocabulary.symbols
    assert loaded.tensors.keys() == model.tensors.keys()
    for name, array in model.tensors.items():
        np.testing.assert_array_equal(loaded.tensors[name], array)


def test_save_load_save_gives_the_same_bytes(tiny_path: Path) -> None:
    assert checkpoint.to_bytes(checkpoint.load(tiny_path)) == tiny_path.read_bytes()


@given(characters=st.sets(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=30))
def test_any_vocabulary_can_be_saved(characters: set[str]) -> None:
    tiny = make_checkpoint(text="".join(sorted(characters)))
    data = checkpoint.to_bytes(replace(tiny, vocabulary=Vocabulary("".join(sorted(characters)))))
    assert data.count(b"charrnn") >= 1
    header = container.from_bytes(container.MODEL, data, Path("m")).header
    assert header["vocabulary"] == "".join(sorted(characters))


def test_the_safetensors_library_reads_the_tensors(tiny_path: Path, tiny: Checkpoint) -> None:
    tensors = safetensors.numpy.load_file(tiny_path)
    assert {name: array.shape for name, array in tensors.items()} == tiny.model_config.tensor_shapes(
        len(tiny.vocabulary)
    )


@pytest.mark.parametrize("value", [math.nan, math.inf, 3e38, -3e38])
def test_weights_that_could_overflow_are_rejected(tiny: Checkpoint, tmp_path: Path, value: float) -> None:
    tensors = {**tiny.tensors, "output.bias": np.full_like(tiny.tensors["output.bias"], value)}
    checkpoint.save(tmp_path / "m.safetensors", replace(tiny, tensors=tensors))
    with pytest.raises(ModelFileError, match="contains weights that are not finite or far too large"):
        checkpoint.load(tmp_path / "m.safetensors")


def test_a_long_chain_of_models_can_be_saved(tiny: Checkpoint, tmp_path: Path) -> None:
    model = tiny
    for number in range(300):
        assert model.training is not None
        base = checkpoint.base_record(str(number), model.training)
        model = replace(model, training=replace(model.training, from_=base))
    checkpoint.save(tmp_path / "m.safetensors", model)
    loaded, names = checkpoint.load(tmp_path / "m.safetensors").training.from_, []
    while loaded is not None:
        names.append(loaded.model)
        loaded = loaded.from_
    assert names == [str(number) for number in range(299, 279, -1)]


ALL = pytest.param(1, 10_000, marks=pytest.mark.slow)


@pytest.mark.parametrize(("stride", "flips"), [(3, 100), ALL])
def test_every_flipped_bit_is_detected(tiny_path: Path, stride: int, flips: int) -> None:
    original = tiny_path.read_bytes()
    size = int.from_bytes(original[:8], "little")
    rng = random.Random(0)
    positions = [*range(0, 8 + size, stride), *(rng.randrange(8 + size, len(original)) for _ in range(flips))]
    for position in positions:
        data = bytearray(original)
        data[position] ^= 1 << rng.randrange(8)
        tiny_path.write_bytes(data)
        with pytest.raises(ModelFileError):
            checkpoint.load(tiny_path)


@pytest.mark.parametrize(("stride", "flips"), [(211, 0), ALL])
def test_every_truncation_is_detected(tiny_path: Path, stride: int, flips: int) -> None:
    original = tiny_path.read_bytes()
    for size in [
        *range(0, 64),
        *range(64, min(len(original), 4096 if stride == 1 else len(original)), stride),
        len(original) - 1,
    ]:
        tiny_path.write_bytes(original[:size])
        with pytest.raises(ModelFileError):
            checkpoint.load(tiny_path)


def test_extra_bytes_at_the_end_are_detected(tiny_path: Path) -> None:
    tiny_path.write_bytes(tiny_path.read_bytes() + b"\0")
    with pytest.raises(ModelFileError, match="damaged"):
        checkpoint.load(tiny_path)


@given(data=st.binary(max_size=200))
def test_arbitrary_bytes_raise_a_model_file_error(data: bytes) -> None:
    for prefix in (b"", len(data).to_bytes(8, "little") + b"{"):
        with pytest.raises(ModelFileError):
            container.from_bytes(container.MODEL, prefix + data, Path("m"))


def test_a_newer_file_format_is_named_in_the_error(
    tiny: Checkpoint, tiny_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "MODEL", replace(container.MODEL, format=container.MODEL.format + 1))
    checkpoint.save(tiny_path, tiny)
    monkeypatch.undo()
    with pytest.raises(ModelFileError, match=f"has file format {container.MODEL.format + 1}"):
        checkpoint.load(tiny_path)


def test_tensors_of_another_shape_are_rejected(tiny: Checkpoint, tiny_path: Path) -> None:
    tensors = {**tiny.tensors, "output.bias": np.zeros(3, dtype=np.float32)}
    checkpoint.save(tiny_path, replace(tiny, tensors=tensors))
    with pytest.raises(ModelFileError, match="tensors that do not match its configuration"):
        checkpoint.load(tiny_path)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_not_finite_are_rejected(tiny: Checkpoint, tiny_path: Path, value: float) -> None:
    bias = tiny.tensors["output.bias"].copy()
    bias[-1] = value
    checkpoint.save(tiny_path, replace(tiny, tensors={**tiny.tensors, "output.bias": bias}))
    with pytest.raises(ModelFileError, match="weights that are not finite"):
        checkpoint.load(tiny_path)


@pytest.mark.parametrize(
    ("field", "value"), [("layers", 3_000_000), ("dropout", 10**400), ("hidden", -1), ("cell", [1])], ids=str
)
def test_an_invalid_configuration_is_rejected_at_once(
    tiny: Checkpoint, tiny_path: Path, field: str, value: object
) -> None:
    config = copy.copy(tiny.model_config)
    object.__setattr__(config, field, value)
    checkpoint.save(tiny_path, replace(tiny, model_config=config))
    with pytest.raises(ModelFileError):
        checkpoint.load(tiny_path)


def test_the_file_mode_follows_the_umask(tiny: Checkpoint, tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        checkpoint.save(tmp_path / "m.safetensors", tiny)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "m.safetensors").stat().st_mode) == 0o640


def test_a_symbolic_link_is_kept(tiny: Checkpoint, tmp_path: Path) -> None:
    (tmp_path / "link.safetensors").symlink_to(tmp_path / "real.safetensors")
    checkpoint.save(tmp_path / "link.safetensors", tiny)
    assert (tmp_path / "link.safetensors").is_symlink()
    checkpoint.load(tmp_path / "real.safetensors")


@POSIX
def test_only_a_regular_file_is_overwritten(tiny: Checkpoint, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/null"), tmp_path):
        with pytest.raises(FileError, match="not a regular file"):
            checkpoint.save(path, tiny)


def test_a_failed_write_keeps_the_old_file_and_leaves_no_temporary_file(
    tiny: Checkpoint, tiny_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = tiny_path.read_bytes()
    other = make_checkpoint(layers=2)

    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(FileError, match="no space left on device"):
        checkpoint.save(tiny_path, other)
    assert tiny_path.read_bytes() == original
    assert [file.name for file in tiny_path.parent.iterdir()] == [tiny_path.name]


def test_the_newest_model_is_used_by_default(
    tiny: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for seconds, name in ((300, "new"), (100, "old")):
        path = checkpoint.model_path(name)
        checkpoint.save(path, tiny)
        os.utime(path, (seconds, seconds))
    assert checkpoint.find(None) == Path("checkpoints/new.safetensors")
    assert checkpoint.find("old") == Path("checkpoints/old.safetensors")
    assert checkpoint.find("checkpoints/old.safetensors") == Path("checkpoints/old.safetensors")


def test_the_error_for_a_missing_model_lists_the_paths_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelFileError, match=r"no such file \(also tried checkpoints/absent\.safetensors\)"):
        checkpoint.find("absent")


def test_a_model_takes_precedence_over_a_text_of_the_same_name(
    tiny: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("names").write_text("emma\n", encoding="utf-8")
    checkpoint.save(checkpoint.model_path("names"), tiny)
    assert checkpoint.find("names") == Path("checkpoints/names.safetensors")


def test_a_file_name_that_is_too_long_is_detected_in_advance(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="name too long"):
        checkpoint.check_can_save(tmp_path / ("n" * 250), replace=False)
    assert list(tmp_path.iterdir()) == []


@POSIX
@pytest.mark.parametrize("name", ["", "-", ".", "..", "/dev/null", "/"])
def test_an_invalid_model_name_is_rejected(name: str) -> None:
    with pytest.raises(FileError, match=r"is not a file name|is not a regular file"):
        checkpoint.model_path(name)
