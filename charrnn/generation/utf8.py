"""The bytes that may follow in well-formed UTF-8: the automaton of table 3-7 of the Unicode standard.

A state says which bytes may continue the current character. This module does not depend on the network.
"""

import numpy as np
from numpy.typing import NDArray

from charrnn.data.vocabulary import BYTES, Vocabulary

START = 0  # the state between two characters
_INVALID = -1
_BYTES_MISSING = np.array([0, 1, 2, 2, 2, 3, 3, 3])  # bytes until the character is complete, in each state
# Transitions: state, first and last byte of a range, next state.
_TRANSITIONS = (
    (START, 0x00, 0x7F, START), (START, 0xC2, 0xDF, 1), (START, 0xE0, 0xE0, 3), (START, 0xE1, 0xEC, 2),
    (START, 0xED, 0xED, 4), (START, 0xEE, 0xEF, 2), (START, 0xF0, 0xF0, 6), (START, 0xF1, 0xF3, 5),
    (START, 0xF4, 0xF4, 7),
    (1, 0x80, 0xBF, START),  # last byte of a character
    (2, 0x80, 0xBF, 1), (3, 0xA0, 0xBF, 1), (4, 0x80, 0x9F, 1),  # second byte of three: no overlong form or surrogate
    (5, 0x80, 0xBF, 2), (6, 0x90, 0xBF, 2), (7, 0x80, 0x8F, 2),  # of four: no overlong form, at most U+10FFFF
)  # fmt: skip

States = NDArray[np.intp]


class UTF8Automaton:
    """The automaton over the ids of a vocabulary.

    Args:
        vocabulary: Vocabulary of bytes.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        byte_transitions = np.full((len(_BYTES_MISSING), 256), _INVALID)
        for state, first, last, next_state in _TRANSITIONS:
            byte_transitions[state, first : last + 1] = next_state
        self._transitions = np.full((len(_BYTES_MISSING), len(vocabulary)), _INVALID)
        self._transitions[:, vocabulary.ids_of(BYTES)] = byte_transitions
        if vocabulary.boundary_id is not None:
            self._transitions[START, vocabulary.boundary_id] = START
        # bytes missing after each id, NaN if the id is invalid
        self._missing_after = np.where(self._transitions == _INVALID, np.nan, _BYTES_MISSING[self._transitions])

    def forbidden(self, states: States, left: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return a mask (B, V) of the ids that break a character, or begin one that cannot be completed.

        If the current character itself is too long for the bytes left, it may continue nevertheless.

        Args:
            states: States (B,).
            left: Number of bytes (B,) that may follow. The values of ended streams do not matter.
        """
        missing = self._missing_after[states]
        invalid = np.isnan(missing)
        too_long = missing > left[:, None] - 1
        return invalid | (too_long & ~(invalid | too_long).all(axis=1, keepdims=True))

    def after(self, states: States, ids: NDArray[np.intp]) -> States:
        """Return the states (B,) after the ids (B,). After an invalid byte, a new character may begin."""
        next_states = self._transitions[states, ids]
        return np.where(next_states == _INVALID, self._transitions[START, ids].clip(START), next_states)
