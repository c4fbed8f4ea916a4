"""Work that a CUDA device does again and again, captured as a graph of its kernels and replayed.

A kernel of a small network is done sooner than Python can ask for the next one, and the device would idle between
them. A graph asks for all of them at once. Knows nothing about what is computed.
"""

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor

WARM_UP = 2  # calls before the capture, in which libraries take the memory that they keep

Function = Callable[..., tuple[Tensor, ...]]  # of tensors and numbers


class Captured:
    """Calls of one function; on a CUDA device, from the third one with the same shapes on, replays of what that did.

    Args:
        wanted: whether the tensors are on a CUDA device; if not, the function is all there is.

    Attributes:
        refusal: why something could not be captured; empty as long as that has not happened. It is tried only once in
            a process, for a capture that fails may leave the device's memory in disorder. What has no graph by then
            gets none.
    """

    refusal: ClassVar[str] = ""

    def __init__(self, wanted: bool) -> None:
        self._wanted = wanted
        self._recordings: dict[object, _Recording] = {}

    def __call__(self, function: Function, *given: Tensor | float) -> tuple[Tensor, ...]:
        """What the function returns; the next call with the same shapes may overwrite it.

        Args:
            function: the same one each time; not kept, for it may be a method of who keeps this. It takes tensors
                and numbers (to be captured, these become fp32 tensors of no dimension). Its course depends on shapes
                alone: it may not look at a value. Other tensors it may read and write, in the memory where they stay.
            given: what it takes.
        """
        if not self._wanted:
            return function(*given)
        shapes = tuple((part.shape, part.dtype) if isinstance(part, Tensor) else None for part in given)
        recording = self._recordings.get(shapes)
        if Captured.refusal and not (recording and recording.graph):
            return function(*given)
        if recording is None:
            recording = self._recordings[shapes] = _Recording(given)
        recording.take(given)
        if recording.graph is None and recording.calls > WARM_UP:
            try:
                recording.capture(function)
            except RuntimeError as error:  # nothing was run yet
                reason = error.__context__ or error  # that the capture failed is said on top of why it did
                Captured.refusal = (str(reason).splitlines() or [type(reason).__name__])[0]
                return function(*given)
        return recording.replay() if recording.graph is not None else recording.run(function)


class _Recording:
    """Calls with one set of shapes."""

    def __init__(self, given: tuple[Tensor | float, ...]) -> None:
        device = next(part.device for part in given if isinstance(part, Tensor))
        self.graph: torch.cuda.CUDAGraph | None = None
        self.calls = 0
        # Not the device's own stream, which cannot be captured; one alone, for each keeps memory to itself.
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
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
        pairs = list(zip(self._given, given, strict=True))
        for place, part in pairs:
            if not isinstance(part, Tensor):
                place.fill_(part)
        with torch.no_grad():
            copies = [(place, part) for place, part in pairs if isinstance(part, Tensor)]
            torch._foreach_copy_([place for place, _ in copies], [part for _, part in copies])

    def run(self, function: Function) -> tuple[Tensor, ...]:
        """Runs the function as the capture will, but for good."""
        own = torch.cuda.current_stream()
        self._stream.wait_stream(own)
        with torch.cuda.stream(self._stream):
            results = function(*self._given)
        own.wait_stream(self._stream)
        return results

    def capture(self, function: Function) -> None:
        """Notes the kernels that the function asks for; none of them is run."""
        graph = torch.cuda.CUDAGraph()
        own = torch.cuda.current_stream()  # to which a capture that fails does not go back by itself
        with torch.cuda.stream(own), torch.cuda.graph(graph, stream=self._stream):
            self._results = function(*self._given)
        self.graph = graph

    def replay(self) -> tuple[Tensor, ...]:
        assert self.graph is not None
        self.graph.replay()
        return self._results
