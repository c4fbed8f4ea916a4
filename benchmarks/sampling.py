"""Measure the microseconds per generated character, compared with PyTorch programs and with the bare products.

The script times these in turn on the same network: V = 65, an LSTM or a GRU, with two layers of 128, 256 and 512
units and three layers of 512.

- loop: `charrnn.generation.generate.generate` in compiled code, at temperature 0.8: everything that a long
  ``charrnn sample`` does, except writing to stdout
- NumPy: the same in NumPy with `--precision fp32`
- batched: a character of one of 256 streams, which are generated in parallel in compiled code
- module: a PyTorch char-rnn: a stacked nn.LSTM or nn.GRU, stepped one character at a time under inference_mode, with
  the output layer, softmax and multinomial
- ops: the same, written by hand in torch operations: a table lookup for the character, one product per matrix, and
  elementwise operations for the gates
- products: only the matrix-vector products of a character, in NumPy. Each weight is read once: the recurrent matrix
  of layer 0, both matrices of the layers above, and the output matrix.
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
STREAMS, STEPS = 256, 32  # streams in parallel, characters per stream
MODULES = {"lstm": nn.LSTM, "gru": nn.GRU}
HEADER = (
    "us per character", "loop", "NumPy", "batched", "module", "ops", "products", "module / loop", "ops / loop",
    "loop / products", "NumPy / products", "loop / batched", "NumPy / batched",
)  # fmt: skip


class Module:
    """The given network as a stacked `nn.LSTM` or `nn.GRU`, stepped as PyTorch char-rnn programs do."""

    def __init__(self, network: CharRNN) -> None:
        config = network.config
        self._output = network.output
        self._stack = MODULES[config.cell](len(VOCABULARY), config.hidden, config.layers)
        for name, weight in network.tensors().items():
            if name.startswith("layers."):
                _, layer, tensor = name.split(".")
                getattr(self._stack, f"{tensor}_l{layer}").data.copy_(torch.from_numpy(weight))

    def step(self, index: int, state: Any) -> tuple[torch.Tensor, Any]:
        """Return the logits (1, V) and the next state. The state before the first character is None."""
        hidden, state = self._stack(_one_hot(index), state)
        return self._output(hidden), state

    @torch.inference_mode()
    def generate(self, length: int) -> str:
        """Return a sample of ``length`` characters."""
        index, state, text = 0, None, []
        for _ in range(length):
            logits, state = self.step(index, state)
            index = int(torch.multinomial(torch.softmax(logits / TEMPERATURE, -1), 1))
            text.append(VOCABULARY.symbols[index])
        return "".join(text)


class Ops(Module):
    """The same network, written by hand in torch operations."""

    def __init__(self, network: CharRNN) -> None:
        super().__init__(network)
        self._lstm = network.config.cell == "lstm"
        self._table = self._stack.weight_ih_l0.T + self._stack.bias_ih_l0  # (V, G*H)
        self._layers = [
            [getattr(self._stack, f"{name}_l{n}") for name in ("weight_ih", "bias_ih", "weight_hh", "bias_hh")]
            for n in range(network.config.layers)
        ]
        self._zeros = torch.zeros(1, network.config.hidden)

    def step(self, index: int, state: Any) -> tuple[torch.Tensor, Any]:
        """Return the logits (1, V) and the next state, as `Module.step` does."""
        hidden, next_state = None, []
        for n, (weight_ih, bias_ih, weight_hh, bias_hh) in enumerate(self._layers):
            h, c = state[n] if state else (self._zeros, self._zeros)
            from_input = (
                self._table[index][None] if hidden is None else nn.functional.linear(hidden, weight_ih, bias_ih)
            )
            from_state = nn.functional.linear(h, weight_hh, bias_hh)
            if self._lstm:
                i, f, g, o = (from_input + from_state).chunk(4, 1)
                c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
                hidden = torch.sigmoid(o) * torch.tanh(c)
            else:
                r_input, z_input, n_input = from_input.chunk(3, 1)
                r_state, z_state, n_state = from_state.chunk(3, 1)
                new = torch.tanh(n_input + torch.sigmoid(r_input + r_state) * n_state)
                hidden = new + torch.sigmoid(z_input + z_state) * (h - new)
            next_state.append((hidden, c))
        return self._output(hidden), next_state


def _one_hot(index: int) -> torch.Tensor:
    return nn.functional.one_hot(torch.tensor([index]), len(VOCABULARY)).float()  # (1, V)


def measure(cell: Cell, layers: int, hidden: int, characters: int, rounds: int) -> list[str | float]:
    """Return one row of the table.

    Raises:
        SystemExit: If the networks do not compute the same logits.
    """
    network = CharRNN(ModelConfig(cell=cell, layers=layers, hidden=hidden), len(VOCABULARY))
    network.initialize(seed=0)
    tensors = network.tensors()
    numpy_rnn, compiled = NumPyRNN(network.config, tensors, "fp32"), CompiledRNN(network.config, tensors)
    module, ops = Module(network), Ops(network)
    logits = numpy_rnn.step(np.zeros(1, dtype=np.intp), numpy_rnn.zero_state(1))[0][0]
    for torch_network in (module, ops):
        if not np.allclose(logits, torch_network.step(0, None)[0].detach().flatten(), atol=1e-5):
            raise SystemExit("NumPy and torch compute different logits")
    matrices = [tensor for name, tensor in tensors.items() if "weight" in name and name != "layers.0.weight_ih"]
    vector = np.ones(hidden, dtype=np.float32)
    config = SampleConfig(length=characters, temperature=TEMPERATURE, seed=0)

    def generate_streams() -> None:
        stream_config = replace(config, length=STEPS)
        requests = RequestList(Request(number) for number in range(STREAMS))
        for _ in generate_batch(compiled, VOCABULARY, stream_config, requests):
            pass

    def multiply_matrices() -> None:
        for _ in range(characters):
            for matrix in matrices:
                matrix.dot(vector)

    candidates = {
        "loop": lambda: "".join(text for text, _ in generate(compiled, VOCABULARY, config)),
        "NumPy": lambda: "".join(text for text, _ in generate(numpy_rnn, VOCABULARY, config)),
        "batched": generate_streams,
        "module": lambda: module.generate(characters),
        "ops": lambda: ops.generate(characters),
        "products": multiply_matrices,
    }
    timings = alternate(candidates, rounds)
    generated = {name: STREAMS * STEPS if name == "batched" else characters for name in candidates}
    microseconds = [median(timings, name, per=generated[name] / 1e6) for name in candidates]
    pairs = (("module", "loop"), ("ops", "loop"), ("loop", "products"), ("NumPy", "products"))
    ratios = [ratio(timings, *pair) for pair in pairs]
    ratios += [ratio(timings, name, "batched") * STREAMS * STEPS / characters for name in ("loop", "NumPy")]
    return [f"{layers}x{hidden} {cell.upper()}", *microseconds, *ratios]


def measure_in_processes(cell: Cell, layers: int, hidden: int, processes: int, *options: str) -> list[str | float]:
    """Return the medians of a row over several new processes, and the minimum and maximum of ``module / loop``.

    `nn.LSTM` reorders its weights at each call. The cost depends on where its memory happens to lie, and stays the
    same for the life of a process.
    """
    command = [sys.executable, *sys.argv[:1], "--row", f"{cell} {layers} {hidden}", *options]
    rows = [json.loads(subprocess.check_output(command, encoding="utf-8")) for _ in range(processes)]
    columns = list(zip(*rows, strict=True))
    return [columns[0][0], *(statistics.median(column) for column in columns[1:]), min(columns[7]), max(columns[7])]


def main() -> None:
    """Measure every network and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1, help="threads of torch and of NumPy's BLAS (1)")
    parser.add_argument(
        "--processes", type=int, default=5, help="number of processes; the table shows the median (5)"
    )
    parser.add_argument("--rounds", type=int, default=7, help="rounds in each process, which takes their median (7)")
    parser.add_argument("--quick", action="store_true", help="check only that the script works")
    parser.add_argument("--row", help="measure only this network, in this process: 'lstm 2 256'")
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
    rows = [measure_in_processes(cell, *size, processes, *options) for cell in MODULES for size in sizes]
    print(table([*HEADER, "min", "max"], rows))


if __name__ == "__main__":
    main()
