"""The recurrent cells: their equations and gradients, each written once and run by every backend.

The functions below only do arithmetic, on anything that has Python's operators: a NumPy array (``numpy_rnn.py``), a
scalar, or a vector of the compiled kernels (``kernels/``). ``torch_rnn.py`` computes the same functions with torch's
own layers where these are faster; tests hold all backends together.

Notation: x_t is the input, h_t the hidden state, c_t the cell state, * the elementwise product, s the logistic
function. W_x and W_h stand for the rows of ``weight_ih`` and ``weight_hh`` that belong to a gate, b_x and b_h for its
biases, b for their sum. Gates have torch's order.

LSTM (Hochreiter & Schmidhuber 1997; the forget gate: Gers, Schmidhuber & Cummins 2000); gates i, f, g, o
    i, f, o = s(W_x x_t + W_h h_{t-1} + b)       input, forget and output gate, each with rows of its own
    g       = tanh(W_x x_t + W_h h_{t-1} + b)    candidate
    c_t     = f * c_{t-1} + i * g
    h_t     = o * tanh(c_t)

GRU (Cho et al. 2014, in the form that cuDNN and torch compute); gates r, z, n
    r, z = s(W_x x_t + W_h h_{t-1} + b)          reset and update gate
    n    = tanh(W_x x_t + b_x + r * (W_h h_{t-1} + b_h))
    h_t  = (1 - z) * n + z * h_{t-1}
  The reset gate acts after the matrix product. Lecture notes often print tanh(W_x x_t + W_h (r * h_{t-1})), which is
  another function, and some of them swap z and 1 - z.

RNN (Elman 1990)
    h_t = tanh(W_x x_t + W_h h_{t-1} + b)

A *pre-activation* is the argument of s or tanh above, computed before a cell's function is called. The GRU's
candidate has two, because the reset gate comes between them: W_x x_t + b_x and W_h h_{t-1} + b_h. One step of an
LSTM with H units, from a character x and a state:

    pre = W_x @ x + W_h @ h + b                              # (4 * H,)
    saved, (h, c) = lstm(np.split(pre, 4), (h, c), np.tanh)  # (H,) each

The gradients need the derivatives s' = s (1 - s) and tanh' = 1 - tanh^2, of values that the step has computed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from charrnn.config import Cell

Number = Any  # has Python's arithmetic operators
Numbers = tuple[Number, ...]
Tanh = Callable[[Number], Number]


def sigmoid(x: Number, tanh: Tanh) -> Number:
    """Return the logistic function of x."""
    return tanh(x * 0.5) * 0.5 + 0.5


def lstm(pre: Sequence[Number], state: Numbers, tanh: Tanh) -> tuple[Numbers, Numbers]:
    """Take one step of an LSTM.

    Args:
        pre: the pre-activations of i, f, g and o.
        state: (h_{t-1}, c_{t-1}).
        tanh: the hyperbolic tangent for this kind of number.

    Returns:
        What `lstm_gradient` needs, and the next state, (h_t, c_t).
    """
    pre_i, pre_f, pre_g, pre_o = pre
    _, c = state  # h is in the pre-activations already
    i, f, g, o = sigmoid(pre_i, tanh), sigmoid(pre_f, tanh), tanh(pre_g), sigmoid(pre_o, tanh)
    c = f * c + i * g
    return (i, f, g, o), (o * tanh(c), c)


def lstm_gradient(
    saved: Numbers, before: Numbers, after: Numbers, grad: Numbers, tanh: Tanh
) -> tuple[Numbers, Numbers]:
    """Differentiate `lstm`.

    Args:
        saved: what `lstm` returned first.
        before: the state before the step.
        after: the state after it.
        grad: the gradients of the loss with respect to h_t and c_t.
        tanh: as for `lstm`.

    Returns:
        The gradients with respect to the pre-activations, and to h_{t-1} and c_{t-1}. The latter exclude the path
        through the pre-activations; None if there is no other path.
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
    return grad_pre, (None, grad_c * f)  # scaled by f alone from step to step: where f is near 1, it doesn't vanish


def gru(pre: Sequence[Number], state: Numbers, tanh: Tanh) -> tuple[Numbers, Numbers]:
    """Take one step of a GRU: pre-activations of r and z, the two of n, state (h,). See `lstm`."""
    pre_r, pre_z, n_x, n_h = pre
    (h,) = state
    r, z = sigmoid(pre_r, tanh), sigmoid(pre_z, tanh)
    n = tanh(n_x + r * n_h)
    return (r, z, n, n_h), (n + z * (h - n),)


def gru_gradient(
    saved: Numbers, before: Numbers, after: Numbers, grad: Numbers, tanh: Tanh
) -> tuple[Numbers, Numbers]:
    """Differentiate `gru`. See `lstm_gradient`."""
    (r, z, n, n_h), (h_before,), (grad_h,) = saved, before, grad
    grad_n = grad_h * (1 - z) * (1 - n * n)
    grad_pre = grad_n * n_h * r * (1 - r), grad_h * (h_before - n) * z * (1 - z), grad_n, grad_n * r
    return grad_pre, (grad_h * z,)


def rnn(pre: Sequence[Number], state: Numbers, tanh: Tanh) -> tuple[Numbers, Numbers]:
    """Take one step of a plain RNN: one pre-activation, state (h,). See `lstm`."""
    h = tanh(pre[0])
    return (h,), (h,)


def rnn_gradient(
    saved: Numbers, before: Numbers, after: Numbers, grad: Numbers, tanh: Tanh
) -> tuple[Numbers, Numbers]:
    """Differentiate `rnn`. See `lstm_gradient`."""
    (h,), (grad_h,) = saved, grad
    return (grad_h * (1 - h * h),), (None,)


@dataclass(frozen=True)
class Equations:
    """One cell's functions, and how the rows of its weights become pre-activations."""

    step: Callable[[Sequence[Number], Numbers, Tanh], tuple[Numbers, Numbers]]
    gradient: Callable[[Numbers, Numbers, Numbers, Numbers, Tanh], tuple[Numbers, Numbers]]
    parts: int  # of the state of a layer: (h,) or (h, c)
    # Which pre-activation takes the input product of each gate, and which one its recurrent product: the same, but
    # for the candidate of a GRU.
    inputs: tuple[int, ...]
    recurrent: tuple[int, ...]

    @property
    def gates(self) -> int:
        """The number of blocks of H rows in each weight matrix."""
        return len(self.inputs)

    @property
    def pre_activations(self) -> int:
        """The number of pre-activations."""
        return max(*self.inputs, *self.recurrent) + 1

    def pre(self, inputs: Numbers, recurrent: Numbers) -> Numbers:
        """Return the pre-activations, from the input and the recurrent product of each gate, biases included."""
        terms: list[Number] = [None] * self.pre_activations
        for place, product in zip((*self.inputs, *self.recurrent), (*inputs, *recurrent), strict=True):
            terms[place] = product if terms[place] is None else terms[place] + product
        return tuple(terms)


EQUATIONS: dict[Cell, Equations] = {
    "lstm": Equations(lstm, lstm_gradient, parts=2, inputs=(0, 1, 2, 3), recurrent=(0, 1, 2, 3)),
    "gru": Equations(gru, gru_gradient, parts=1, inputs=(0, 1, 2), recurrent=(0, 1, 3)),
    "rnn": Equations(rnn, rnn_gradient, parts=1, inputs=(0,), recurrent=(0,)),
}
