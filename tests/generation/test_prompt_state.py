"""The state of a model after a prompt, in memory and on disk."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from charrnn import checkpoint
from charrnn.checkpoint import Checkpoint
from charrnn.config import SampleConfig
from charrnn.errors import FileError, ModelFileError
from charrnn.generation import prompt_state as module
from charrnn.generation.generate import Request, RequestList, generate, generate_batch
from charrnn.generation.prompt_state import PromptState, check_can_save, empty_prompt_state, load, read_prompt, save
from charrnn.rnn.backend import Decoder
from charrnn.rnn.compiled_rnn import CompiledRNN
from charrnn.rnn.numpy_rnn import NumPyRNN
from tests.conftest import TEXT, make_checkpoint

texts = st.text(alphabet=sorted(set(TEXT)), max_size=30)


def state_after(network: Decoder, tiny: Checkpoint, *parts: str) -> PromptState:
    prompt_state = empty_prompt_state(network, tiny.vocabulary)
    for part in parts:
        prompt_state = read_prompt(network, prompt_state, tiny.vocabulary.encode(part))
    return prompt_state


def generate_text(
    network: Decoder, tiny: Checkpoint, prompt: str, prompt_state: PromptState | None, **settings: Any
) -> str:
    config = SampleConfig(length=40, seed=1, **settings)
    return "".join(chunk.text for chunk in generate(network, tiny.vocabulary, config, prompt, prompt_state))


@settings(max_examples=30)
@given(parts=st.lists(texts, min_size=1, max_size=4), rest=texts, penalty=st.sampled_from([1.0, 1.5]))
def test_reading_a_text_in_parts_equals_reading_it_at_once(
    tiny: Checkpoint, parts: list[str], rest: str, penalty: float
) -> None:
    network, options = NumPyRNN(tiny.model_config, tiny.tensors), {"repeat_penalty": penalty, "repeat_window": 7}
    full = generate_text(network, tiny, "".join(parts) + rest, None, **options)
    assert generate_text(network, tiny, rest, state_after(network, tiny, *parts), **options) == full


def test_compiled_code_reads_a_prompt_as_numpy_does(tiny: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "READ_SIZE", 10)
    by_numpy, compiled = (
        state_after(network, tiny, TEXT)
        for network in (NumPyRNN(tiny.model_config, tiny.tensors), CompiledRNN(tiny.model_config, tiny.tensors))
    )
    assert np.array_equal(by_numpy.state.flatten(), compiled.state.flatten())


def test_progress_covers_every_character(tiny: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "READ_SIZE", 10)
    counts: list[int] = []
    network = NumPyRNN(tiny.model_config, tiny.tensors)
    read_prompt(
        network, empty_prompt_state(network, tiny.vocabulary), tiny.vocabulary.encode("fox" * 11), counts.append
    )
    assert counts == [10, 10, 10, 2]  # the last character is read by the first sampling step


def test_many_samples_can_start_from_one_state(tiny: Checkpoint) -> None:
    network = NumPyRNN(tiny.model_config, tiny.tensors)
    prompt_state, config = state_after(network, tiny, "The quick "), SampleConfig(length=20, seed=3)

    def texts_of(prompts: list[str], start: PromptState | None) -> list[str]:
        requests = RequestList(Request(number, prompt) for number, prompt in enumerate(prompts))
        return [sample.text for sample in generate_batch(network, tiny.vocabulary, config, requests, start, width=2)]

    prompts = ["", "fox", "brown fox"]
    assert texts_of(prompts, prompt_state) == texts_of(["The quick " + prompt for prompt in prompts], None)


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_saving_and_loading_preserves_a_state(cell: Any, tmp_path: Path) -> None:
    model = make_checkpoint(cell=cell, layers=2)
    network = NumPyRNN(model.model_config, model.tensors)
    prompt_state, path = state_after(network, model, "The quick "), tmp_path / "state"
    save(path, model, prompt_state)

    loaded = load(path, model, network)
    assert generate_text(network, model, "fox", loaded) == generate_text(network, model, "The quick fox", None)


def test_states_of_an_unsaved_model_fit_the_saved_one(tiny: Checkpoint, tmp_path: Path) -> None:
    network = NumPyRNN(tiny.model_config, tiny.tensors)
    checkpoint.save(tmp_path / "model.safetensors", tiny)
    save(tmp_path / "state", tiny, state_after(network, tiny, "fox"))
    load(tmp_path / "state", checkpoint.load(tmp_path / "model.safetensors"), network)


def refusal(path: Path, model: Checkpoint) -> str:
    with pytest.raises(ModelFileError) as raised:
        load(path, model, NumPyRNN(model.model_config, model.tensors))
    return f"{raised.value.reason}; {raised.value.advice}"


def test_the_state_of_another_model_is_rejected(tiny: Checkpoint, tmp_path: Path) -> None:
    network, other = NumPyRNN(tiny.model_config, tiny.tensors), make_checkpoint(text=TEXT + "?")
    save(tmp_path / "state", tiny, state_after(network, tiny, "fox"))
    assert refusal(tmp_path / "state", other) == "is the state of another model; use the model that saved it"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda data: data[:-9], "is truncated"),
        (lambda data: data[:-9] + b"x" + data[-8:], "is damaged"),
        (lambda data: b"", "is empty"),
        (lambda data: b"hello" * 9, "is not a safetensors file"),
    ],
)
def test_an_invalid_state_file_is_rejected(tiny: Checkpoint, tmp_path: Path, change: Any, reason: str) -> None:
    network, path = NumPyRNN(tiny.model_config, tiny.tensors), tmp_path / "state"
    save(path, tiny, state_after(network, tiny, "fox"))
    path.write_bytes(change(path.read_bytes()))
    assert reason in refusal(path, tiny)


def test_a_model_file_is_not_overwritten_by_a_state(tiny: Checkpoint, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    checkpoint.save(path, tiny)
    start = path.read_bytes()
    assert "is a charrnn model, but not a saved state" in refusal(path, tiny)
    with pytest.raises(ModelFileError, match="already exists and is not a prompt state"):
        check_can_save(path)
    assert path.read_bytes() == start


def test_an_older_state_is_overwritten_but_not_a_directory(tiny: Checkpoint, tmp_path: Path) -> None:
    network, path = NumPyRNN(tiny.model_config, tiny.tensors), tmp_path / "state"
    save(path, tiny, state_after(network, tiny, "fox"))
    check_can_save(path)
    with pytest.raises(FileError):
        check_can_save(tmp_path)


@pytest.mark.parametrize("size", [60, 300, 1000])
def test_a_torn_state_can_be_replaced(tiny: Checkpoint, tmp_path: Path, size: int) -> None:
    network, path = NumPyRNN(tiny.model_config, tiny.tensors), tmp_path / "state"
    state = state_after(network, tiny, "fox")
    save(path, tiny, state)
    path.write_bytes(path.read_bytes()[:size])
    check_can_save(path)
    save(path, tiny, state)
    load(path, tiny, network)


@pytest.mark.parametrize("value", [math.nan, math.inf, 3e38])
def test_a_state_with_senseless_values_is_rejected(tiny: Checkpoint, tmp_path: Path, value: float) -> None:
    network, path = NumPyRNN(tiny.model_config, tiny.tensors), tmp_path / "state"
    state = state_after(network, tiny, "fox")
    save(path, tiny, replace(state, state=state.state.map(lambda part: part * 0 + np.float32(value))))
    assert refusal(path, tiny).startswith("does not contain a valid state of this model")


def test_the_empty_state_can_be_saved(tiny: Checkpoint, tmp_path: Path) -> None:
    network = NumPyRNN(tiny.model_config, tiny.tensors)
    (tmp_path / "state").touch()  # an empty file, as created by mktemp
    check_can_save(tmp_path / "state")
    save(tmp_path / "state", tiny, empty_prompt_state(network, tiny.vocabulary))
    assert generate_text(network, tiny, "", load(tmp_path / "state", tiny, network)) == generate_text(
        network, tiny, "", None
    )
