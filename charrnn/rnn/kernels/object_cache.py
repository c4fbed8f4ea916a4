"""Autotuner code that is kept on disk, and called without the compiler that made it.

LLVM alone loads it, in a fraction of the time that Numba takes to be imported. It is made again where the sources
that it stems from, the compilers or the processor are others, and where the file is damaged; where it can be kept
nowhere, by each process.

Importing this module raises ImportError where llvmlite is missing.
"""

import hashlib
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import llvmlite
from llvmlite import binding

from charrnn.errors import FileError
from charrnn.io.atomic_io import write_atomic
from charrnn.version import __version__

_DIGEST = hashlib.sha256().digest_size  # bytes at the beginning of a file: the digest of all others

binding.initialize_native_target()
binding.initialize_native_asmprinter()


@dataclass(frozen=True)
class Source:
    """A function in LLVM's language, and the processor that it is for."""

    module: str
    name: str  # of the function in there, which calls none outside
    processor: str
    features: str

    def compile(self, name: str) -> bytes:
        """Its machine code, in which it has another name.

        Raises:
            ImportError: it does call others, whose places nobody would know later.
        """
        module = binding.parse_assembly(self.module)
        for function in module.functions:
            if function.name == self.name:
                function.name = name
            elif not function.is_declaration:
                function.linkage = "internal"
        for variable in module.global_variables:  # Numba's own, which nothing needs
            if not variable.is_declaration:
                variable.linkage = "internal"
        machine = _machine(self.processor, self.features)
        builder = binding.create_pass_builder(machine, binding.create_pipeline_tuning_options(speed_level=1))
        builder.getModulePassManager().run(module, builder)  # leaves out what the function does not call
        if strange := [f.name for f in module.functions if f.is_declaration and not f.name.startswith("llvm.")]:
            raise ImportError(f"{name} needs {', '.join(strange)}")
        return bytes(machine.emit_object(module))


class MachineCode:
    """A function that is ready to be called at its ``address``.

    Args:
        name: of the function, and what its file's name begins with.
        sources: files that it depends on.
        make: called where no file on disk is of use.

    Raises:
        ImportError: there is no such function here.
    """

    def __init__(self, name: str, sources: Sequence[Path], make: Callable[[], Source]) -> None:
        file = _file(name, sources)
        code = _found(file)
        source = make() if code is None else None
        try:
            if source is not None:
                code = source.compile(name)
                _keep(file, code)
            self._engine = binding.create_mcjit_compiler(binding.parse_assembly(""), _machine())  # owns the code
            self._engine.add_object_file(binding.ObjectFileRef.from_data(code))
            self._engine.finalize_object()
        except RuntimeError as error:  # LLVM's only one
            raise ImportError(str(error)) from error
        self.address = int(self._engine.get_function_address(name))


def is_kept(name: str, sources: Sequence[Path]) -> bool:
    """Whether the machine code of such a function lies on disk."""
    return _found(_file(name, sources)) is not None


def _file(name: str, sources: Sequence[Path]) -> str:
    return f"{name}-{_key(sources)}.o"


def _machine(processor: str = "", features: str = "") -> Any:
    """What LLVM wants to know of the processor; the options are Numba's own."""
    target = binding.Target.from_triple(binding.get_process_triple())
    relocation = "static" if target.name.startswith("x86") else "default"
    return target.create_target_machine(processor, features, 3, relocation, "jitdefault", jit=True)


def _key(sources: Sequence[Path]) -> str:
    """Names all that the machine code depends on."""
    numba = find_spec("numba")  # which is not imported by that
    version = Path(numba.origin).with_name("_version.py") if numba and numba.origin else None
    texts = [_content(file) or b"" for file in [*sources, *([version] if version else [])]]
    settings = [f"{name}={value}" for name, value in os.environ.items() if name.startswith("NUMBA_")]
    settings = sorted(one for one in settings if not one.startswith("NUMBA_CACHE_DIR="))
    names = (
        __version__, sys.version, llvmlite.__version__, binding.llvm_version_info, binding.get_process_triple(),
        binding.get_host_cpu_name(), binding.get_host_cpu_features().flatten(), settings,
    )  # fmt: skip
    return hashlib.sha256(b"".join([*texts, repr(names).encode()])).hexdigest()[:16]


def _folders() -> list[Path]:
    """Where machine code may be kept, the best place first: that of Numba's own, or else one of the user's."""
    chosen = os.environ.get("NUMBA_CACHE_DIR")
    own = Path(os.environ.get("LOCALAPPDATA") or os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
    users = [own / "charrnn"] if own.is_absolute() else []  # not below wherever we happen to be
    return [Path(chosen) if chosen else Path(__file__).with_name("__pycache__"), *users]


def _found(file: str) -> bytes | None:
    for folder in _folders():
        data = _content(folder / file) or b""
        if hashlib.sha256(data[_DIGEST:]).digest() == data[:_DIGEST]:  # whole and unharmed
            return data[_DIGEST:]
    return None


def _keep(file: str, code: bytes) -> None:
    for folder in _folders():
        with suppress(FileError):
            write_atomic(folder / file, hashlib.sha256(code).digest() + code)
            return


def _content(file: Path) -> bytes | None:
    try:
        return file.read_bytes()
    except OSError:
        return None
