"""What a model has in mind after it has read a text: its state, in memory and as a file.

The file is sealed (``container.py``), with the arrays ``state.LAYER.PART``, each (H,), and a header of

    format       1
    model        the digest of the model file; no other model has this state
    recent       the last characters that were read, as one string of symbols
    digest       of the whole file
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
from charrnn.data.vocabulary import Vocabulary
from charrnn.errors import DamagedFileError, ModelFileError
from charrnn.io import atomic_io, container
from charrnn.io.container import PROMPT_STATE
from charrnn.rnn.backend import Decoder, FusedDecoder
from charrnn.rnn.decode_inputs import DecodeInputs
from charrnn.rnn.numpy_rnn import Ids
from charrnn.rnn.state import State

READ_SIZE = 4096  # characters that are read between two heartbeats


@dataclass(frozen=True)
class PromptState:
    """A network after a text.

    The last character of the text has not passed through it yet: it is what the next step reads.
    """

    state: State  # of one stream
    recent: Ids  # the last ids of the text, at most MAX_REPEAT_WINDOW; none if nothing was read
    model: str = ""  # the digest of the model that read it, where more than one may be at hand


def empty_prompt_state(network: Decoder, vocabulary: Vocabulary) -> PromptState:
    """A network that has read nothing, or nothing but that a document starts."""
    start = [] if vocabulary.boundary_id is None else [vocabulary.boundary_id]
    return PromptState(network.zero_state(1), np.array(start, dtype=np.intp))


def read_prompt(
    network: Decoder,
    prompt_state: PromptState,
    ids: NDArray[np.unsignedinteger],
    on_progress: Callable[[int], object] = lambda count: None,
) -> PromptState:
    """Reads on.

    Args:
        network: which was prompt_state.
        prompt_state: from where.
        ids: of the text.
        on_progress: is told, now and then, how many characters were read since.
    """
    recent = np.concatenate([prompt_state.recent, ids[-MAX_REPEAT_WINDOW:].astype(np.intp)])[-MAX_REPEAT_WINDOW:]
    state, inputs = prompt_state.state, np.concatenate([prompt_state.recent[-1:].astype(ids.dtype), ids])[:-1]
    for begin in range(0, len(inputs), READ_SIZE):
        piece = inputs[begin : begin + READ_SIZE].astype(np.intp)  # eight times as large
        state = _after(network, state, piece)
        on_progress(len(piece))
    return replace(prompt_state, state=state, recent=recent)


def _after(network: Decoder, state: State, ids: Ids) -> State:
    if isinstance(network, FusedDecoder):
        following = np.append(ids[1:], 0)[:, None]  # what follows the last one is read by somebody else
        return network.run(ids[:1], state, DecodeInputs.forced(following), measure=False)[2]
    for one in ids:
        _, state = network.step(np.array([one]), state)
    return state


def save(path: Path, model: Checkpoint, prompt_state: PromptState) -> None:
    """Writes the state to a file, whole or not at all; an older state is replaced.

    Raises:
        FileError: it cannot be written.
    """
    symbols = model.vocabulary.symbols_at(prompt_state.recent.tolist())
    header = {"model": checkpoint.digest(model), "recent": symbols}
    atomic_io.write_atomic(path, container.to_bytes(PROMPT_STATE, header, _arrays(prompt_state.state)))


def load(path: Path, model: Checkpoint, network: Decoder) -> PromptState:
    """Reads a state that `save` wrote, and verifies every byte of it.

    Raises:
        ModelFileError: missing, unreadable, damaged, no state, or that of another model.
    """
    header, arrays = container.read(PROMPT_STATE, path)
    if header.get("model") != checkpoint.digest(model):
        _refuse(path, "is the state of another model", "name the one that it was saved with")
    blank = network.zero_state(1)
    shapes = {name: part.shape for name, part in _arrays(blank).items()}
    sound = {name: its.shape for name, its in arrays.items() if its.dtype == np.float32 and np.isfinite(its).all()}
    recent = model.vocabulary.ids_of(str(header.get("recent", ""))).astype(np.intp)
    if sound != shapes or recent.min(initial=0) < 0:
        _refuse(path, "does not describe a state of its model", "save it again with --save-state")
    state = blank.from_named(arrays).map(lambda part: part[None])
    return PromptState(state, recent, str(header["model"]))


def _arrays(state: State) -> dict[str, NDArray[np.float32]]:
    return {name: part[0] for name, part in state.named()}


def check_can_save(path: Path) -> None:
    """Makes sure, before anything is read, that a state can be saved there and destroys nothing else.

    Raises:
        ModelFileError: there is something that is no saved state.
        FileError: no regular file can be written there.
    """
    atomic_io.check_writable(path)
    if path.is_file() and path.stat().st_size:
        try:
            container.read(PROMPT_STATE, path)
        except DamagedFileError:
            _refuse(path, "exists already and is no saved state", "give the state another name")


def _refuse(path: Path, reason: str, advice: str) -> NoReturn:
    raise ModelFileError(str(path), reason, advice)
