"""One character of one stream: microseconds of our loop, of its parts, and of the ways it competes with.

Timed in turn on the same network, V = 65, two layers of 128, 256 and 512 units and three of 512, LSTM and GRU:

- loop: `charrnn.generation.generate.write` by compiled code, at temperature 0.8: all that a long
  ``charrnn sample`` does but writing to stdout;
- NumPy: the same by NumPy with `--precision fp32`;
- of 256: a character of one among 256 streams that are written side by side, by compiled code;
- module: what a PyTorch char-rnn does: one stacked nn.LSTM or nn.GRU stepped one character at a time under
  inference_mode, the output layer, softmax, multinomial;
- ops: the same by hand, as a programmer who minds the time writes it: a row of a table for the character, one product
  for each matrix, the gates in torch's elementwise operations;
- products: the matrix-vector products of a character in NumPy and nothing else, so that each weight that a character
  needs is read once: the recurrent matrix of layer 0, both matrices of the layers above, the output matrix.
"""

import argparse
import json
import statistics
import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from side_by_side import alternate, describe_machine, median, ratio, table, use_threads
from torch import nn

from charrnn.config import Cell, ModelConfig, SampleConfig
from charrnn.data.vocabulary import Vocabulary
from charrnn.generation.generate import Request, RequestList, generate, generate_batch
from charrnn.rnn.compiled_rnn import CompiledRNN
from charrnn.rnn.numpy_rnn import NumPyRNN
from charrnn.rnn.torch_rnn import CharRNN

VOCABULARY = Vocabulary("".join(map(chr, range(ord("!"), ord("!") + 65))))
TEMPERATURE = 0.8
STREAMS, STEPS = 256, 32  # side by side, characters of each
MODULES = {"lstm": nn.LSTM, "gru": nn.GRU}
HEADER = (
    "us per character", "loop", "NumPy", "of 256", "module", "ops", "products", "module / loop", "ops / loop",
    "loop / products", "NumPy / products", "loop / of 256", "NumPy / of 256",
)  # fmt: skip


class Module:
    """A network as PyTorch programs sample from it, with the weights of ours."""

    def __init__(self, network: CharRNN) -> None:
        config = network.config
        self._output = network.output
        self._stack = MODULES[config.cell](len(VOCABULARY), config.hidden, config.layers)
        for name, weight in network.tensors().items():
            if name.startswith("layers."):
                _, layer, tensor = name.split(".")
                getattr(self._stack, f"{tensor}_l{layer}").data.copy_(torch.from_numpy(weight))

    def step(self, index: int, state: Any) -> tuple[torch.Tensor, Any]:
        """Logits (1, V) of the next character, and the state after this one; the state before the first is None."""
        hidden, state = self._stack(_one_hot(index), state)
        return self._output(hidden), state

    @torch.inference_mode()
    def generate(self, length: int) -> str:
        """A text of so many characters."""
        index, state, text = 0, None, []
        for _ in range(length):
            logits, state = self.step(index, state)
            index = int(torch.multinomial(torch.softmax(logits / TEMPERATURE, -1), 1))
            text.append(VOCABULARY.symbols[index])
        return "".join(text)


class Ops(Module):
    """The same by hand."""

    def __init__(self, network: CharRNN) -> None:
        super().__init__(network)
        self._lstm = network.config.cell == "lstm"
        self._table = self._stack.weight_ih_l0.T + self._stack.bias_ih_l0  # (V, G*H)
        self._layers = [
            [getattr(self._stack, f"{name}_l{n}") for name in ("weight_ih", "bias_ih", "weight_hh", "bias_hh")]
            for n in range(network.config.layers)
        ]
        self._blank = torch.zeros(1, network.config.hidden)

    def step(self, index: int, state: Any) -> tuple[torch.Tensor, Any]:
        """As a `Module` does."""
        hidden, after = None, []
        for n, (weight_ih, bias_ih, weight_hh, bias_hh) in enumerate(self._layers):
            h, c = state[n] if state else (self._blank, self._blank)
            signal = self._table[index][None] if hidden is None else nn.functional.linear(hidden, weight_ih, bias_ih)
            echo = nn.functional.linear(h, weight_hh, bias_hh)
            if self._lstm:
                i, f, g, o = (signal + echo).chunk(4, 1)
                c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
                hidden = torch.sigmoid(o) * torch.tanh(c)
            else:
                (r, z, new), (r_echo, z_echo, new_echo) = signal.chunk(3, 1), echo.chunk(3, 1)
                new = torch.tanh(new + torch.sigmoid(r + r_echo) * new_echo)
                hidden = new + torch.sigmoid(z + z_echo) * (h - new)
            after.append((hidden, c))
        return self._output(hidden), after


def _one_hot(index: int) -> torch.Tensor:
    return nn.functional.one_hot(torch.tensor([index]), len(VOCABULARY)).float()  # (1, V)


def measure(cell: Cell, layers: int, hidden: int, characters: int, rounds: int) -> list[str | float]:
    """One row of the table.

    Raises:
        SystemExit: the contestants do not compute the same logits.
    """
    network = CharRNN(ModelConfig(cell=cell, layers=layers, hidden=hidden), len(VOCABULARY))
    network.initialize(seed=0)
    tensors = network.tensors()
    numpy_rnn, compiled = NumPyRNN(network.config, tensors, "fp32"), CompiledRNN(network.config, tensors)
    module, ops = Module(network), Ops(network)
    exact = numpy_rnn.step(np.zeros(1, dtype=np.intp), numpy_rnn.zero_state(1))[0][0]
    for rival in (module, ops):
        if not np.allclose(exact, rival.step(0, None)[0].detach().flatten(), atol=1e-5):
            raise SystemExit("the numpy_rnn and torch disagree")
    matrices = [tensor for name, tensor in tensors.items() if "weight" in name and name != "layers.0.weight_ih"]
    vector = np.ones(hidden, dtype=np.float32)
    config = SampleConfig(length=characters, temperature=TEMPERATURE, seed=0)

    def many() -> None:
        few = replace(config, length=STEPS)
        for _ in generate_batch(compiled, VOCABULARY, few, RequestList(Request(number) for number in range(STREAMS))):
            pass

    def multiply() -> None:
        for _ in range(characters):
            for matrix in matrices:
                matrix.dot(vector)

    contestants = {
        "loop": lambda: "".join(text for text, _ in generate(compiled, VOCABULARY, config)),
        "NumPy": lambda: "".join(text for text, _ in generate(numpy_rnn, VOCABULARY, config)),
        "of 256": many,
        "module": lambda: module.generate(characters),
        "ops": lambda: ops.generate(characters),
        "products": multiply,
    }
    laps = alternate(contestants, rounds)
    each = {name: STREAMS * STEPS if name == "of 256" else characters for name in contestants}
    microseconds = [median(laps, name, per=each[name] / 1e6) for name in contestants]
    pairs = (("module", "loop"), ("ops", "loop"), ("loop", "products"), ("NumPy", "products"))
    ratios = [ratio(laps, *pair) for pair in pairs]
    ratios += [ratio(laps, name, "of 256") * STREAMS * STEPS / characters for name in ("loop", "NumPy")]
    return [f"{layers}x{hidden} {cell.upper()}", *microseconds, *ratios]


def in_processes(cell: Cell, layers: int, hidden: int, processes: int, *options: str) -> list[str | float]:
    """The medians of a row over several fresh processes, and the least and the most of ``module / loop``.

    What `nn.LSTM` pays for laying out its weights anew depends on where its memory happens to lie, and stays the same
    as long as a process lives.
    """
    command = [sys.executable, *sys.argv[:1], "--row", f"{cell} {layers} {hidden}", *options]
    rows = [json.loads(subprocess.check_output(command, encoding="utf-8")) for _ in range(processes)]
    columns = list(zip(*rows, strict=True))
    return [columns[0][0], *(statistics.median(column) for column in columns[1:]), min(columns[7]), max(columns[7])]


def main() -> None:
    """Measures every network and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1, help="of torch and of NumPy's BLAS alike (1)")
    parser.add_argument("--processes", type=int, default=5, help="of which the median is quoted (5)")
    parser.add_argument("--rounds", type=int, default=7, help="in each process, of which it takes the median (7)")
    parser.add_argument("--quick", action="store_true", help="only see that it runs")
    parser.add_argument("--row", help="measure this one network in this process: 'lstm 2 256'")
    arguments = parser.parse_args()
    use_threads(arguments.threads)
    torch.set_num_threads(arguments.threads)
    sizes, characters, rounds = (
        (((1, 16),), 20, 3) if arguments.quick else (((2, 128), (2, 256), (2, 512), (3, 512)), 200, arguments.rounds)
    )
    if arguments.row:
        cell, layers, hidden = arguments.row.split()
        print(json.dumps(measure(cell, int(layers), int(hidden), characters, rounds)))
        return
    processes = 2 if arguments.quick else arguments.processes
    options = ["--threads", str(arguments.threads), "--rounds", str(rounds), *["--quick"] * arguments.quick]
    print(describe_machine(threads_of_torch_and_BLAS=arguments.threads, processes=processes, rounds=rounds), "\n")
    rows = [in_processes(cell, *size, processes, *options) for cell in MODULES for size in sizes]
    print(table([*HEADER, "least", "most"], rows))


if __name__ == "__main__":
    main()
