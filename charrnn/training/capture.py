"""Work that a CUDA device does again and again, captured as a graph of its kernels and replayed.

A kernel of a small network is done sooner than Python can ask for the next one, and the device would idle between
them. A graph asks for all of them at once. Knows nothing about what is computed.
"""

from collections.abc import Callable

import torch
from torch import Tensor

WARM_UP = 2  # calls before the capture, in which libraries take the memory that they keep

Function = Callable[..., tuple[Tensor, ...]]  # of tensors and numbers


class Captured:
    """A function; on a CUDA device, from its third call with the same shapes on, a replay of what that one did.

    Args:
        function: takes tensors and numbers, and returns tensors. Captured, it gets the numbers as tensors () in fp32.
            Shapes must be all that its course depends on: it may not look at a value. Tensors other than its
            arguments may be read and written, where they stay in their memory.
        wanted: whether the tensors are on a CUDA device; if not, the function is all there is.

    Attributes:
        refusal: why there is no graph, and each call is run for itself; empty as long as that has not happened.
    """

    def __init__(self, function: Function, wanted: bool) -> None:
        self.refusal = ""
        self._function = function
        self._wanted = wanted
        self._films: dict[object, _Film] = {}

    def __call__(self, *given: Tensor | float) -> tuple[Tensor, ...]:
        """What the function returns; the next call with the same shapes may overwrite it."""
        if not self._wanted:
            return self._function(*given)
        shapes = tuple((part.shape, part.dtype) if isinstance(part, Tensor) else None for part in given)
        film = self._films.get(shapes)
        if film is None:
            film = self._films[shapes] = _Film(given)
        film.take(given)
        if film.graph is None and film.calls > WARM_UP and not self.refusal:
            try:
                film.capture(self._function)
            except RuntimeError as error:  # nothing was run, so nothing is lost
                self.refusal = (str(error).splitlines() or [type(error).__name__])[0]
        return film.replay() if film.graph is not None else film.run(self._function)


class _Film:
    """The calls of one function with one set of shapes."""

    def __init__(self, given: tuple[Tensor | float, ...]) -> None:
        device = next(part.device for part in given if isinstance(part, Tensor))
        self.graph: torch.cuda.CUDAGraph | None = None
        self.calls = 0
        self._given = [
            torch.empty_like(part, memory_format=torch.contiguous_format, requires_grad=False)
            if isinstance(part, Tensor)
            else torch.empty((), device=device)
            for part in given
        ]
        self._results: tuple[Tensor, ...] = ()

    def take(self, given: tuple[Tensor | float, ...]) -> None:
        """Copies what is given to where the graph will look for it."""
        self.calls += 1
        with torch.no_grad():
            for place, part in zip(self._given, given, strict=True):
                place.copy_(part) if isinstance(part, Tensor) else place.fill_(part)

    def run(self, function: Function) -> tuple[Tensor, ...]:
        """Runs the function, on a stream that isn't the device's own, as a capture does."""
        stream, own = torch.cuda.Stream(), torch.cuda.current_stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(own)
        with torch.cuda.stream(stream):
            results = function(*self._given)
        own.wait_stream(stream)
        return results

    def capture(self, function: Function) -> None:
        """Notes the kernels that the function asks for; none of them is run."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._results = function(*self._given)
        self.graph = graph

    def replay(self) -> tuple[Tensor, ...]:
        assert self.graph is not None
        self.graph.replay()
        return self._results
