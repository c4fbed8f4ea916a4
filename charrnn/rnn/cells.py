"""The recurrent cells: their equations and gradients, each written once and run by every backend.

The functions below take numbers and do arithmetic, nothing else. A number is whatever has Python's operators: a NumPy
array (``numpy_rnn.py``), a scalar, or a vector of the compiled kernels (``kernels/``). ``torch_rnn.py`` computes the
same functions with torch's own layers where these are faster; tests hold all backends together.

Notation: x_t is the input, h_t the hidden state, c_t the cell state, * the elementwise product, s the logistic
function. W_x and W_h stand for the rows of ``weight_ih`` and ``weight_hh`` that belong to a gate, b_x and b_h for its
biases, b for their sum. Gates have torch's order.

RNN (Elman 1990)
    h_t = tanh(W_x x_t + W_h h_{t-1} + b)

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

A *pre-activation* is what stands in the parentheses above. The GRU's candidate has two, because the reset gate comes
between them: W_x x_t + b_x and W_h h_{t-1} + b_h.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from charrnn.config import Cell

Number = Any  # has Python's arithmetic operators
Numbers = tuple[Number, ...]
Tanh = Callable[[Number], Number]


def sigmoid(x: Number, tanh: Tanh) -> Number:
    """Return the logistic function of x."""
    return tanh(x * 0.5) * 0.5 + 0.5


def rnn(pre: Numbers, state: Numbers, tanh: Tanh) -> tuple[Numbers, Numbers]:
    """Take one step of a plain RNN.

    Args:
        pre: the pre-activation, in a tuple of one.
        state: (h_{t-1},), which has already entered the pre-activation.
        tanh: the hyperbolic tangent for this kind of number.

    Returns:
        What `rnn_gradient` needs, (h_t,), and the next state, (h_t,).
    """
    h = tanh(pre[0])
    return (h,), (h,)


def rnn_gradient(
    saved: Numbers, before: Numbers, after: Numbers, grad: Numbers, tanh: Tanh
) -> tuple[Numbers, Numbers]:
    """Differentiate `rnn`.

    Args:
        saved: what `rnn` returned first.
        before: the state before the step.
        after: the state after it.
        grad: the gradient of the loss with respect to the state after the step.
        tanh: as for `rnn`.

    Returns:
        The gradients with respect to the pre-activations, and to the state before the step. The latter leaves out
        what flows through the pre-activations, and has None where nothing else flows.
    """
    (h,), (grad_h,) = saved, grad
    return (grad_h * (1 - h * h),), (None,)


def lstm(pre: Numbers, state: Numbers, tanh: Tanh) -> tuple[Numbers, Numbers]:
    """Take one step of an LSTM: pre-activations of i, f, g and o, states (h, c). See `rnn`."""
    pre_i, pre_f, pre_g, pre_o = pre
    _, c = state
    i, f, g, o = sigmoid(pre_i, tanh), sigmoid(pre_f, tanh), tanh(pre_g), sigmoid(pre_o, tanh)
    c = f * c + i * g
    return (i, f, g, o), (o * tanh(c), c)


def lstm_gradient(
    saved: Numbers, before: Numbers, after: Numbers, grad: Numbers, tanh: Tanh
) -> tuple[Numbers, Numbers]:
    """Differentiate `lstm`. See `rnn_gradient`."""
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
    return grad_pre, (None, grad_c * f)


def gru(pre: Numbers, state: Numbers, tanh: Tanh) -> tuple[Numbers, Numbers]:
    """Take one step of a GRU: pre-activations of r and z, the two of n, state (h,). See `rnn`."""
    pre_r, pre_z, n_x, n_h = pre
    (h,) = state
    r, z = sigmoid(pre_r, tanh), sigmoid(pre_z, tanh)
    n = tanh(n_x + r * n_h)
    return (r, z, n, n_h), (n + z * (h - n),)


def gru_gradient(
    saved: Numbers, before: Numbers, after: Numbers, grad: Numbers, tanh: Tanh
) -> tuple[Numbers, Numbers]:
    """Differentiate `gru`. See `rnn_gradient`."""
    (r, z, n, n_h), (h_before,), (grad_h,) = saved, before, grad
    grad_n = grad_h * (1 - z) * (1 - n * n)
    grad_pre = grad_n * n_h * r * (1 - r), grad_h * (h_before - n) * z * (1 - z), grad_n, grad_n * r
    return grad_pre, (grad_h * z,)


@dataclass(frozen=True)
class Equations:
    """A cell, for code that serves all of them."""

    step: Callable[[Numbers, Numbers, Tanh], tuple[Numbers, Numbers]]
    gradient: Callable[[Numbers, Numbers, Numbers, Numbers, Tanh], tuple[Numbers, Numbers]]
    gates: int  # blocks of H rows in each weight matrix
    parts: int  # of the state of a layer: (h,) or (h, c)
    inputs: tuple[int, ...]  # which pre-activation takes the input product of each gate
    recurrent: tuple[int, ...]  # which one takes its recurrent product

    @property
    def pre_activations(self) -> int:
        """How many there are."""
        return max(*self.inputs, *self.recurrent) + 1

    def pre(self, inputs: Numbers, recurrent: Numbers) -> Numbers:
        """Return the pre-activations, from the input and the recurrent product of each gate, biases included."""
        terms: list[Number] = [None] * self.pre_activations
        for place, product in zip((*self.inputs, *self.recurrent), (*inputs, *recurrent), strict=True):
            terms[place] = product if terms[place] is None else terms[place] + product
        return tuple(terms)


EQUATIONS: dict[Cell, Equations] = {
    "rnn": Equations(rnn, rnn_gradient, gates=1, parts=1, inputs=(0,), recurrent=(0,)),
    "lstm": Equations(lstm, lstm_gradient, gates=4, parts=2, inputs=(0, 1, 2, 3), recurrent=(0, 1, 2, 3)),
    "gru": Equations(gru, gru_gradient, gates=3, parts=1, inputs=(0, 1, 2), recurrent=(0, 1, 3)),
}
