"""The equations and gradients of the recurrent cells, written once for all backends.

The functions use only arithmetic operators. So they accept NumPy arrays (``numpy_rnn.py``), scalars, and the vectors
of the compiled kernels (``kernels/``). ``torch_rnn.py`` computes the same equations with torch's layers where these
are faster. Tests check that all backends agree.

Notation: x_t is the input, h_t the hidden state, c_t the cell state, * the elementwise product, s the logistic
function. W_x and W_h are the rows of ``weight_ih`` and ``weight_hh`` that belong to a gate, b_x and b_h its biases,
and b is the sum of both biases. Gates have torch's order.

LSTM (Hochreiter & Schmidhuber 1997; the forget gate: Gers, Schmidhuber & Cummins 2000); gates i, f, g, o
    i, f, o = s(W_x x_t + W_h h_{t-1} + b)       input gate i, forget gate f, output gate o
    g       = tanh(W_x x_t + W_h h_{t-1} + b)    candidate g
    c_t     = f * c_{t-1} + i * g
    h_t     = o * tanh(c_t)

GRU (Cho et al. 2014, in the form that cuDNN and torch compute); gates r, z, n
    r, z = s(W_x x_t + W_h h_{t-1} + b)          reset gate r, update gate z
    n    = tanh(W_x x_t + b_x + r * (W_h h_{t-1} + b_h))    candidate n
    h_t  = (1 - z) * n + z * h_{t-1}
  The reset gate acts after the matrix product. Textbooks often print tanh(W_x x_t + W_h (r * h_{t-1})), which is a
  different function. Some textbooks also swap z and 1 - z.

RNN (Elman 1990)
    h_t = tanh(W_x x_t + W_h h_{t-1} + b)

A *pre-activation* is an argument of s or tanh above. It is computed before a cell's function is called. The GRU's
candidate has two, W_x x_t + b_x and W_h h_{t-1} + b_h, because the reset gate is applied to only one of them. One
step of an LSTM with H units, from a one-hot character x and a state (h, c):

    pre = W_x @ x + W_h @ h + b                              # (4 * H,)
    saved, (h, c) = lstm(np.split(pre, 4), (h, c), np.tanh)  # (H,) each

The gradients use s' = s (1 - s) and tanh' = 1 - tanh^2, which need only values that the step has computed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from charrnn.config import Cell

Number = Any  # a value with Python's arithmetic operators
Numbers = tuple[Number, ...]
Tanh = Callable[[Number], Number]


def sigmoid(x: Number, tanh: Tanh) -> Number:
    """Return the logistic function of x."""
    return tanh(x * 0.5) * 0.5 + 0.5


def lstm(pre: Sequence[Number], state: Numbers, tanh: Tanh) -> tuple[Numbers, Numbers]:
    """Take one step of an LSTM.

    Args:
        pre: The pre-activations of i, f, g and o.
        state: The state (h_{t-1}, c_{t-1}). Only c_{t-1} is used; h_{t-1} is part of the pre-activations.
        tanh: The hyperbolic tangent for this type of number.

    Returns:
        The values that `lstm_gradient` needs, and the next state (h_t, c_t).
    """
    pre_i, pre_f, pre_g, pre_o = pre
    _, c = state
    i, f, g, o = sigmoid(pre_i, tanh), sigmoid(pre_f, tanh), tanh(pre_g), sigmoid(pre_o, tanh)
    c = f * c + i * g
    return (i, f, g, o), (o * tanh(c), c)


def lstm_gradient(
    saved: Numbers, before: Numbers, after: Numbers, grad: Numbers, tanh: Tanh
) -> tuple[Numbers, Numbers]:
    """Differentiate `lstm`.

    Args:
        saved: The first value that `lstm` returned.
        before: The state before the step.
        after: The state after the step.
        grad: The gradients of the loss with respect to h_t and c_t.
        tanh: The hyperbolic tangent that `lstm` used.

    Returns:
        The gradients with respect to the pre-activations, and those with respect to h_{t-1} and c_{t-1}. The latter
        exclude the path through the pre-activations, and are None if there is no other path.
    """
    (i, f, g, o), (grad_h, grad_c) = saved, grad
    (_, c_before), (_, c_after) = before, after
    tanh_c = tanh(c_after)
    grad_c = grad_c + grad_h * o * (1 - tanh_c * tanh_c)
    grad_pre = (
        grad_c * g * i * (1 - i),
        grad_c * c_before * f * (1 - f),
        grad_c * i * (1 - g * g),
        grad_h * tanh_c * o * (1 - o),
    )
    return grad_pre, (None, grad_c * f)  # only f scales it from step to step; where f is near 1, it doesn't vanish


def gru(pre: Sequence[Number], state: Numbers, tanh: Tanh) -> tuple[Numbers, Numbers]:
    """Take one step of a GRU; see `lstm`. The pre-activations are r, z and the two of n. The state is (h,)."""
    pre_r, pre_z, n_x, n_h = pre
    (h,) = state
    r, z = sigmoid(pre_r, tanh), sigmoid(pre_z, tanh)  # reset gate, update gate
    n = tanh(n_x + r * n_h)
    return (r, z, n, n_h), (n + z * (h - n),)


def gru_gradient(
    saved: Numbers, before: Numbers, after: Numbers, grad: Numbers, tanh: Tanh
) -> tuple[Numbers, Numbers]:
    """Differentiate `gru`; see `lstm_gradient`."""
    (r, z, n, n_h), (h_before,), (grad_h,) = saved, before, grad
    grad_n = grad_h * (1 - z) * (1 - n * n)
    grad_pre = grad_n * n_h * r * (1 - r), grad_h * (h_before - n) * z * (1 - z), grad_n, grad_n * r
    return grad_pre, (grad_h * z,)


def rnn(pre: Sequence[Number], state: Numbers, tanh: Tanh) -> tuple[Numbers, Numbers]:
    """Take one step of a plain RNN; see `lstm`. There is one pre-activation, and the state is (h,)."""
    h = tanh(pre[0])
    return (h,), (h,)


def rnn_gradient(
    saved: Numbers, before: Numbers, after: Numbers, grad: Numbers, tanh: Tanh
) -> tuple[Numbers, Numbers]:
    """Differentiate `rnn`; see `lstm_gradient`."""
    (h,), (grad_h,) = saved, grad
    return (grad_h * (1 - h * h),), (None,)


@dataclass(frozen=True)
class Equations:
    """The functions of a cell, and the pre-activations to which its matrix products are added."""

    step: Callable[[Sequence[Number], Numbers, Tanh], tuple[Numbers, Numbers]]
    gradient: Callable[[Numbers, Numbers, Numbers, Numbers, Tanh], tuple[Numbers, Numbers]]
    num_state_arrays: int  # of a layer: 1 for (h,), 2 for (h, c)
    # The index of the pre-activation to which the input product and the recurrent product of each gate are added.
    # These indices, called slots, differ only for the candidate of a GRU.
    input_slots: tuple[int, ...]
    recurrent_slots: tuple[int, ...]

    @property
    def gates(self) -> int:
        """The number of blocks of H rows in each weight matrix."""
        return len(self.input_slots)

    @property
    def pre_activations(self) -> int:
        """The number of pre-activations."""
        return max(*self.input_slots, *self.recurrent_slots) + 1

    def pre(self, inputs: Numbers, recurrent: Numbers) -> Numbers:
        """Return the pre-activations.

        Args:
            inputs: The input product of each gate, with its bias.
            recurrent: The recurrent product of each gate, with its bias.
        """
        pre: list[Number] = [None] * self.pre_activations
        slots = (*self.input_slots, *self.recurrent_slots)
        for slot, product in zip(slots, (*inputs, *recurrent), strict=True):
            pre[slot] = product if pre[slot] is None else pre[slot] + product
        return tuple(pre)


EQUATIONS: dict[Cell, Equations] = {
    "lstm": Equations(lstm, lstm_gradient, 2, input_slots=(0, 1, 2, 3), recurrent_slots=(0, 1, 2, 3)),
    "gru": Equations(gru, gru_gradient, 1, input_slots=(0, 1, 2), recurrent_slots=(0, 1, 3)),
    "rnn": Equations(rnn, rnn_gradient, 1, input_slots=(0,), recurrent_slots=(0,)),
}
