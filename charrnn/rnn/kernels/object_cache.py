"""Compiled code on disk: each file carries a digest, which is checked before anything of it runs.

A file is rebuilt when the sources of the kernels, the compiler or the processor change, and when it is damaged. The
digest finds damage, not malice: who can write the folder can have any code run. Where no folder can be written, each
process compiles for itself.

Importing this module raises ImportError where llvmlite is missing.
"""

import hashlib
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import llvmlite
from llvmlite import binding, ir

from charrnn.errors import FileError
from charrnn.io.atomic_io import write_atomic
from charrnn.io.user_cache import user_cache
from charrnn.version import __version__

FOLDER_VARIABLE = "CHARRNN_CACHE"  # of the environment: where compiled code is kept
_DIGEST_BYTES = hashlib.sha256().digest_size  # at the beginning of a file: the digest of the rest
_HERE = Path(__file__).parent

_COMPILING = threading.Lock()  # one compilation at a time: others wait and find its result

try:
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    binding.initialize_native_asmparser()  # for the one instruction that is written in assembly
except (OSError, RuntimeError, AttributeError) as error:  # a library that is missing, broken or of another version
    raise ImportError(f"llvmlite cannot be used: {error}") from error


@dataclass(frozen=True)
class Target:
    """The processor that code is compiled for."""

    cpu: str
    features: str  # as LLVM lists them

    @classmethod
    @cache
    def host(cls) -> "Target":
        """Return this machine's processor; one with unknown features has none."""
        try:
            features = binding.get_host_cpu_features().flatten()
        except RuntimeError:
            features = ""
        return cls(binding.get_host_cpu_name(), features)

    def has(self, feature: str) -> bool:
        """Return whether the processor has a feature, by LLVM's name for it."""
        return f"+{feature}" in self.features.split(",")

    def machine(self) -> binding.TargetMachine:
        """Return what LLVM needs to know to emit code."""
        target = binding.Target.from_triple(binding.get_process_triple())
        relocation = "static" if target.name.startswith("x86") else "default"
        return target.create_target_machine(self.cpu, self.features, 3, relocation, "jitdefault", jit=True)


@dataclass(frozen=True)
class ObjectCode:
    """The functions of a module, loaded. They exist as long as this object does."""

    engine: binding.ExecutionEngine

    def address(self, function: str) -> int:
        """Return where a function begins.

        Raises:
            ImportError: there is no such function.
        """
        if not (address := int(self.engine.get_function_address(function))):
            raise ImportError(f"the compiled code has no function {function}")
        return address


def load(name: str, build: Callable[[], ir.Module], target: Target) -> ObjectCode:
    """Return the code of a module, from disk if it is there.

    Args:
        name: of the module; with the sources, the compiler and the target it identifies the code.
        build: writes the module; called where no file on disk is of use.
        target: the processor.

    Raises:
        ImportError: LLVM cannot compile for this processor.
    """
    file = _file(name, target)
    try:
        with _COMPILING:
            code = _read(file)
            if code is None:
                code = _compile(build(), target)
                _write(file, code)
        engine = binding.create_mcjit_compiler(binding.parse_assembly(""), target.machine())
        engine.add_object_file(binding.ObjectFileRef.from_data(code))
        engine.finalize_object()
    except RuntimeError as error:  # the only one that LLVM raises
        raise ImportError(str(error)) from error
    return ObjectCode(engine)


def is_cached(name: str, target: Target) -> bool:
    """Return whether the code of a module lies on disk, undamaged."""
    return _read(_file(name, target)) is not None


def _compile(module: ir.Module, target: Target) -> bytes:
    module.triple = binding.get_process_triple()
    machine = target.machine()
    parsed = binding.parse_assembly(str(module))
    parsed.verify()
    builder = binding.create_pass_builder(machine, binding.create_pipeline_tuning_options(speed_level=2))
    builder.getModulePassManager().run(parsed, builder)
    return bytes(machine.emit_object(parsed))


def _file(name: str, target: Target) -> str:
    """Return a file name with a digest of everything that the code depends on."""
    facts = (name, __version__, llvmlite.__version__, binding.llvm_version_info, binding.get_process_triple(), target)
    return f"{name}-{hashlib.sha256(_sources() + repr(facts).encode()).hexdigest()[:16]}.o"


@cache
def _sources() -> bytes:
    """Return a digest of the source files that kernels are built from."""
    files = [*sorted(_HERE.glob("*.py")), _HERE.parent / "cells.py", _HERE.parent / "tanh_approx.py"]
    return hashlib.sha256(b"".join(_content(file) or b"" for file in files)).digest()


def _folders() -> list[Path]:
    """Return where code may be kept: the folder that was named, or beside the sources, or else among the user's."""
    if named := os.environ.get(FOLDER_VARIABLE):
        return [Path(named)]
    return [_HERE / "__pycache__", *filter(None, [user_cache()])]


def _read(file: str) -> bytes | None:
    for folder in _folders():
        data = _content(folder / file) or b""
        if hashlib.sha256(data[_DIGEST_BYTES:]).digest() == data[:_DIGEST_BYTES]:
            return data[_DIGEST_BYTES:]
    return None


def _write(file: str, code: bytes) -> None:
    for folder in _folders():
        with suppress(FileError):
            write_atomic(folder / file, hashlib.sha256(code).digest() + code)
            return


def _content(file: Path) -> bytes | None:
    try:
        return file.read_bytes()
    except OSError:
        return None
