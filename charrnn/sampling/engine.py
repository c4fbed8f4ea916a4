"""Which of the two computes: NumPy, which is there at once, or compiled code, which is many times as fast.

Both write the same text to the last character, so that nobody needs to know.
"""

from collections.abc import Callable, Mapping

from charrnn.config import ModelConfig, SamplePrecision
from charrnn.sampling.stepper import Array, Network, Stepper

LOADING = 0.1  # seconds that it takes to load what compiled code needs
_PER_CHARACTER, _PER_PARAMETER = 2e-4, 4e-10  # seconds that NumPy takes, in a laptop's order of magnitude


class Engines:
    """The network of a model, by whichever is expected to be done sooner.

    Args:
        config: its shape.
        tensors: its weights, as a model file holds them.
        compiling: called before the compilation of code that is not on disk yet, which takes seconds.
    """

    def __init__(
        self, config: ModelConfig, tensors: Mapping[str, Array], compiling: Callable[[], None] = lambda: None
    ) -> None:
        self._config, self._tensors, self._compiling = config, tensors, compiling
        self._made: dict[tuple[SamplePrecision, bool], Network] = {}

    def network(self, precision: SamplePrecision, characters: float) -> Network:
        """One that is about to read and write so many characters; the same one again where it may be."""
        parameters = self._config.parameters(0)
        compiled = characters * (_PER_CHARACTER + parameters * _PER_PARAMETER) > LOADING and precision == "int8"
        compiled |= (precision, True) in self._made
        if (precision, compiled) not in self._made:
            self._made[precision, compiled] = self._make(precision, compiled=compiled)
        return self._made[precision, compiled]

    def _make(self, precision: SamplePrecision, *, compiled: bool) -> Network:
        if compiled:
            try:
                from charrnn.sampling.compiled import Compiled

                return Compiled(self._config, self._tensors, self._compiling)
            except ImportError:  # no Numba here, or one that cannot compile for this processor
                pass
        return Stepper(self._config, self._tensors, precision)
