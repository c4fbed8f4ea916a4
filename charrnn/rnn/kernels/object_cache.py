"""A cache of compiled code on disk. Each file contains a digest, which is checked before the code is used.

Code is compiled again when the sources of the kernels, the compiler or the processor change, and when the file is
damaged, which a warning reports. The digest includes the name of the file, so a renamed file is damaged, too. The
digest detects damage, not attacks: anyone who can write the user's files can make charrnn run any code. Files of
other users except root, and files that everybody may write, are ignored. If no cache directory is writable, each
process compiles the code again.

Importing this module raises ImportError if llvmlite is missing.
"""

import hashlib
import os
import stat
import threading
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import llvmlite

from charrnn.errors import CacheWarning, FileError
from charrnn.io.atomic_io import write_atomic
from charrnn.io.regular_file import open_regular
from charrnn.io.user_cache import user_cache
from charrnn.version import __version__

CACHE_VARIABLE = "CHARRNN_CACHE"  # environment variable with the cache directory
_DIGEST_BYTES = hashlib.sha256().digest_size  # size of the digest at the start of a file, of its name and the rest
_MAX_BYTES = 64 << 20  # largest size of a file
_SOURCE_DIR = Path(__file__).parent

_COMPILE_LOCK = threading.Lock()  # lets threads wait for a compilation instead of repeating it

try:
    from llvmlite import binding, ir

    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    binding.initialize_native_asmparser()  # for vdpbf16ps in gemm.py
except (OSError, RuntimeError, AttributeError) as error:  # the library is missing, broken or of another version
    raise ImportError(f"llvmlite cannot be used: {error}") from error


@dataclass(frozen=True)
class Target:
    """A processor to compile for."""

    cpu: str  # LLVM's name
    features: str  # LLVM's feature string, such as "+avx2,-avx512f"

    @classmethod
    @cache
    def host(cls) -> "Target":
        """Return the processor of this machine. If LLVM cannot list its features, it has none."""
        try:
            features = binding.get_host_cpu_features().flatten()
        except RuntimeError:
            features = ""
        return cls(binding.get_host_cpu_name(), features)

    def has(self, feature: str) -> bool:
        """Return whether the processor has a feature, given by LLVM's name."""
        return f"+{feature}" in self.features.split(",")

    def machine(self) -> binding.TargetMachine:
        """Return LLVM's target machine, which emits code."""
        target = binding.Target.from_triple(binding.get_process_triple())
        relocation = "static" if target.name.startswith("x86") else "default"
        return target.create_target_machine(self.cpu, self.features, 3, relocation, "jitdefault", jit=True)


@dataclass(frozen=True)
class ObjectCode:
    """The loaded code of a module. Its functions are valid as long as this object exists."""

    engine: binding.ExecutionEngine

    def address(self, function: str) -> int:
        """Return the address of a function.

        Raises:
            ImportError: If there is no such function.
        """
        if not (address := int(self.engine.get_function_address(function))):
            raise ImportError(f"the compiled code has no function {function}")
        return address


def load(name: str, build: Callable[[], ir.Module], target: Target) -> ObjectCode:
    """Return the code of a module, from the cache if possible.

    Args:
        name: The name of the module. Together with the sources, the compiler and the target it identifies the code.
        build: Builds the module. Called only if the cache has no valid file.
        target: The processor.

    Raises:
        ImportError: If LLVM cannot compile for the processor.

    Warns:
        CacheWarning: If a file in the cache is damaged.
    """
    file_name = _file_name(name, target)
    try:
        with _COMPILE_LOCK:
            code, damaged = _read(file_name)
            is_complete = code is not None and damaged is None
            if damaged is not None:
                warnings.warn(f"{damaged}: is damaged and not used; it is written again", CacheWarning, stacklevel=2)
            if code is None:
                code = _compile(build(), target)
            if not is_complete:
                _write(file_name, code)
        engine = binding.create_mcjit_compiler(binding.parse_assembly(""), target.machine())
        engine.add_object_file(binding.ObjectFileRef.from_data(code))
        engine.finalize_object()
    except RuntimeError as error:  # raised by llvmlite for all errors of LLVM
        raise ImportError(str(error)) from error
    return ObjectCode(engine)


def is_cached(name: str, target: Target) -> bool:
    """Return whether the cache has a valid file with the code of a module."""
    return _read(_file_name(name, target))[0] is not None


def _compile(module: ir.Module, target: Target) -> bytes:
    module.triple = binding.get_process_triple()
    machine = target.machine()
    parsed = binding.parse_assembly(str(module))
    parsed.verify()
    builder = binding.create_pass_builder(machine, binding.create_pipeline_tuning_options(speed_level=2))
    builder.getModulePassManager().run(parsed, builder)
    return bytes(machine.emit_object(parsed))


def _file_name(name: str, target: Target) -> str:
    """Return a file name with a digest of everything that the code depends on."""
    key = (name, __version__, llvmlite.__version__, binding.llvm_version_info, binding.get_process_triple(), target)
    return f"{name}-{hashlib.sha256(_source_digest() + repr(key).encode()).hexdigest()[:16]}.o"


@cache
def _source_digest() -> bytes:
    """Return a digest of the source files from which kernels are built."""
    parent = _SOURCE_DIR.parent
    paths = [*sorted(_SOURCE_DIR.glob("*.py")), parent / "cells.py", parent / "tanh_approx.py"]
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths if path.exists())).digest()


def _directories() -> list[Path]:
    """Return the cache directories in order of preference.

    If the environment variable is set, its directory is the only one. Otherwise they are ``__pycache__`` next to the
    sources, and the user's cache.
    """
    if directory := os.environ.get(CACHE_VARIABLE):
        return [Path(directory)]
    return [_SOURCE_DIR / "__pycache__", *filter(None, [user_cache()])]


def _read(file_name: str) -> tuple[bytes | None, Path | None]:
    """Return the code in the first valid file, or None, and the path of the first damaged file before it, or None."""
    damaged = None
    for directory in _directories():
        path = directory / file_name
        try:
            with open_regular(path) as file:
                if not _is_trusted(os.fstat(file.fileno())):
                    continue
                data = file.read(_MAX_BYTES)
        except OSError:  # missing or unreadable
            continue
        except ValueError:
            data = b""
        digest, code = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
        if _digest(file_name, code) == digest:
            return code, damaged
        damaged = damaged or path
    return None, damaged


def _write(file_name: str, code: bytes) -> None:
    """Save code in the first directory that is writable, if any."""
    for directory in _directories():
        with suppress(FileError):
            write_atomic(directory / file_name, _digest(file_name, code) + code)
            return


def _digest(file_name: str, code: bytes) -> bytes:
    return hashlib.sha256(file_name.encode() + code).digest()


def _is_trusted(status: os.stat_result) -> bool:
    """Return whether a file belongs to the user or root, and is not writable for everybody."""
    if os.name == "nt":  # Windows has no such owners and modes
        return True
    return status.st_uid in (0, os.geteuid()) and not status.st_mode & stat.S_IWOTH
