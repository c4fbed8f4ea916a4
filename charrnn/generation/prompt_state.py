"""The prompt state: the state of a model after it has read a text, in memory and as a file.

The file is a container (``io/container.py``). Its arrays are named ``state.LAYER.PART``, each of shape (H,). Its
header has the fields

    format       1
    model        digest of the model file; the state is valid for this model only
    recent       last characters read, as one string of symbols
    digest       digest of the file
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from charrnn import checkpoint
from charrnn.checkpoint import Checkpoint
from charrnn.config import MAX_REPEAT_WINDOW
from charrnn.config.checks import check_digest, refuse
from charrnn.config.schema import SchemaError, from_json, to_json
from charrnn.config.settings import checked
from charrnn.data.vocabulary import Vocabulary
from charrnn.errors import ModelFileError
from charrnn.io import atomic_io, container
from charrnn.io.container import PROMPT_STATE
from charrnn.rnn.backend import Decoder, FusedDecoder
from charrnn.rnn.decode_inputs import DecodeInputs
from charrnn.rnn.numpy_rnn import Ids
from charrnn.rnn.state import State

READ_SIZE = 4096  # characters read between two progress reports
_SAVE_AGAIN = "save it again with --save-state"


def _check_recent(name: str, value: str) -> None:
    """Raise SettingError if there are more characters than a state can have."""
    if len(value) > MAX_REPEAT_WINDOW:
        refuse(name, value, f"at most {MAX_REPEAT_WINDOW:,} characters")


@dataclass(frozen=True, kw_only=True)
class _Header:
    model: str = checked(check_digest)
    recent: str = checked(_check_recent)


@dataclass(frozen=True)
class PromptState:
    """State of a model after it has read a text.

    The network has not read the last character of the text yet. It is the input of the next step.
    """

    state: State  # recurrent state of one stream, before the last character
    recent: Ids  # last ids of the text, at most MAX_REPEAT_WINDOW; empty if no text was read
    model: str = ""  # digest of the model that read the text; empty if only one model is in use


def empty_prompt_state(network: Decoder, vocabulary: Vocabulary) -> PromptState:
    """Return the state before any text: the zero state, after a boundary if the model was trained on documents."""
    start = [] if vocabulary.boundary_id is None else [vocabulary.boundary_id]
    return PromptState(network.zero_state(1), np.array(start, dtype=np.intp))


def read_prompt(
    network: Decoder,
    prompt_state: PromptState,
    ids: NDArray[np.unsignedinteger],
    on_progress: Callable[[int], object] = lambda count: None,
) -> PromptState:
    """Continue reading from a prompt state, and return the state after the text.

    Args:
        network: Network of the model to which the prompt state belongs.
        prompt_state: State before the text.
        ids: Ids of the text.
        on_progress: Function that is called with the number of characters read since its last call.
    """
    recent = np.concatenate([prompt_state.recent, ids[-MAX_REPEAT_WINDOW:].astype(np.intp)])[-MAX_REPEAT_WINDOW:]
    state, inputs = prompt_state.state, np.concatenate([prompt_state.recent[-1:].astype(ids.dtype), ids])[:-1]
    for begin in range(0, len(inputs), READ_SIZE):
        block = inputs[begin : begin + READ_SIZE].astype(np.intp)  # not all at once, because intp takes more memory
        state = _read_ids(network, state, block)
        on_progress(len(block))
    return replace(prompt_state, state=state, recent=recent)


def _read_ids(network: Decoder, state: State, ids: Ids) -> State:
    """Return the recurrent state after the ids (T,)."""
    if isinstance(network, FusedDecoder):
        next_ids = np.append(ids[1:], 0)[:, None]  # the id after the last one is not read here
        return network.run(ids[:1], state, DecodeInputs.forced(next_ids), measure=False)[2]
    for t in range(len(ids)):
        _, state = network.step(ids[t : t + 1], state)
    return state


def save(path: Path, model: Checkpoint, prompt_state: PromptState) -> None:
    """Save a prompt state to a file, atomically. An existing file is replaced.

    Raises:
        FileError: If the file cannot be written.
    """
    symbols = model.vocabulary.symbols_at(prompt_state.recent.tolist())
    header = to_json(_Header(model=checkpoint.digest(model), recent=symbols))
    atomic_io.write_atomic(path, container.to_bytes(PROMPT_STATE, header, _arrays(prompt_state.state)))


def load(path: Path, model: Checkpoint, network: Decoder) -> PromptState:
    """Load a prompt state from a file, and verify its digest.

    Args:
        path: File that `save` wrote.
        model: Model to which the state must belong.
        network: Network of the model, which defines the shapes of the state.

    Raises:
        ModelFileError: If the file is missing, unreadable, damaged, not a prompt state, or belongs to another model.
    """
    contents = container.read(PROMPT_STATE, path)
    try:
        header = from_json(_Header, contents.header)
    except SchemaError as error:
        _refuse(path, f"does not describe a state: {error}", _SAVE_AGAIN)
    if header.model != checkpoint.digest(model):
        _refuse(path, "is the state of another model", "use the model that saved it")
    zero_state, arrays = network.zero_state(1), contents.arrays
    expected = {name: part.shape for name, part in _arrays(zero_state).items()}
    valid = {name: array.shape for name, array in arrays.items() if array.dtype == np.float32}
    recent = model.vocabulary.ids_of(header.recent).astype(np.intp)
    if valid != expected or not checkpoint.are_finite(arrays) or recent.min(initial=0) < 0:
        _refuse(path, "does not contain a valid state of this model", _SAVE_AGAIN)
    state = zero_state.from_named(arrays).map(lambda part: part[None])
    return PromptState(state, recent, header.model)


def _arrays(state: State) -> dict[str, NDArray[np.float32]]:
    """Return the parts (H,) of the state of a single stream by name."""
    return {name: part[0] for name, part in state.named()}


def check_can_save(path: Path) -> None:
    """Check that a prompt state can be saved to a path without replacing any other kind of file.

    Raises:
        ModelFileError: If the file exists and is not a prompt state.
        FileError: If no regular file can be written at the path.
    """
    atomic_io.check_writable(path)
    try:
        if path.exists() and path.stat().st_size and not container.looks_like(PROMPT_STATE, path):
            _refuse(path, "already exists and is not a prompt state", "choose another name")
    except (OSError, ValueError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        _refuse(path, f"cannot be read ({reason})", "choose another name")


def _refuse(path: Path, reason: str, advice: str) -> NoReturn:
    raise ModelFileError(str(path), reason, advice)
