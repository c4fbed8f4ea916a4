"""Which bytes may come next if text is to stay UTF-8: the automaton of table 3-7 of the Unicode standard.

A state is what a character that has begun still wants. Knows nothing about networks; bytes are symbols of a
vocabulary (``data/vocabulary.py``).
"""

import numpy as np
from numpy.typing import NDArray

from charrnn.data.vocabulary import BYTES, Vocabulary

START = 0  # between two characters
_WRONG = -1
_WANTED = np.array([0, 1, 2, 2, 2, 3, 3, 3])  # bytes until the character ends, in each state
# From the state, the first and the last byte, and the state after them.
_STEPS = (
    (START, 0x00, 0x7F, START), (START, 0xC2, 0xDF, 1), (START, 0xE0, 0xE0, 3), (START, 0xE1, 0xEC, 2),
    (START, 0xED, 0xED, 4), (START, 0xEE, 0xEF, 2), (START, 0xF0, 0xF0, 6), (START, 0xF1, 0xF3, 5),
    (START, 0xF4, 0xF4, 7),
    (1, 0x80, 0xBF, START),  # the last byte of any
    (2, 0x80, 0xBF, 1), (3, 0xA0, 0xBF, 1), (4, 0x80, 0x9F, 1),  # the second of three: no detour, no surrogate
    (5, 0x80, 0xBF, 2), (6, 0x90, 0xBF, 2), (7, 0x80, 0x8F, 2),  # of four: no detour, nothing beyond U+10FFFF
)  # fmt: skip

States = NDArray[np.intp]


class UTF8Automaton:
    """The automaton over the ids of a vocabulary of bytes.

    Args:
        vocabulary: of bytes.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        steps = np.full((len(_WANTED), 256), _WRONG)
        for state, first, last, after in _STEPS:
            steps[state, first : last + 1] = after
        self._after = np.full((len(_WANTED), len(vocabulary)), _WRONG)
        self._after[:, vocabulary.ids_of(BYTES)] = steps
        if vocabulary.boundary_id is not None:
            self._after[START, vocabulary.boundary_id] = START
        self._ends = np.where(self._after == _WRONG, np.nan, _WANTED[self._after])  # bytes to come after each id

    def forbidden(self, states: States, left: NDArray[np.float64]) -> NDArray[np.bool_]:
        """The ids (B, V) that would break a character, or begin one that ends too late.

        A character that was begun before, and for which there is no room, may go on nevertheless.

        Args:
            states: (B,).
            left: (B,), how many bytes may still come; of a stream that is over, any number.
        """
        wrong = np.isnan(self._ends[states])
        late = self._ends[states] > left[:, None] - 1
        return wrong | (late & ~(wrong | late).all(axis=1, keepdims=True))

    def after(self, states: States, ids: NDArray[np.intp]) -> States:
        """The states (B,) after these ids (B,); after one that is wrong a character may begin."""
        states = self._after[states, ids]
        return np.where(states == _WRONG, self._after[START, ids].clip(START), states)
