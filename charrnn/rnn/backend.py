"""Which of the two computes: NumPy, which is there at once, or compiled code, which is many times as fast.

Both write the same text to the last character, so that nobody needs to know.
"""

from collections.abc import Callable, Mapping

from charrnn.config import ModelConfig, SamplePrecision
from charrnn.rnn.numpy_rnn import Array, Network, NumPyRNN

LOADING = 0.1  # seconds that it takes to load what compiled code needs
COMPILING = 3.0  # and to compile it, once on a machine
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
        self._steppers: dict[SamplePrecision, Network] = {}
        self._compiled: Network | None = None
        self._none_here = False

    def network(self, precision: SamplePrecision, characters: float) -> Network:
        """One that is about to read and write so many characters; the same one again where it may be."""
        seconds = characters * (_PER_CHARACTER + self._config.parameters(0) * _PER_PARAMETER)
        if precision == "int8":
            if self._compiled is None and seconds > LOADING and not self._none_here:
                self._compiled = self._load(seconds)
            if self._compiled is not None:
                return self._compiled
        if precision not in self._steppers:
            self._steppers[precision] = NumPyRNN(self._config, self._tensors, precision)
        return self._steppers[precision]

    def _load(self, seconds: float) -> Network | None:
        """The compiled one, unless it would have to be compiled and NumPy is done before that."""
        try:
            from charrnn.rnn.compiled_rnn import Compiled, is_compiled

            if seconds > COMPILING or is_compiled(self._config.cell):
                return Compiled(self._config, self._tensors, self._compiling)
        except ImportError:  # no Numba here, or one that cannot compile for this processor
            self._none_here = True
        return None
