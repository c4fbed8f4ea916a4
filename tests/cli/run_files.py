"""Read the files of training runs without what differs between two equal runs: the time that they took.

The model file contains no times, so it is compared byte for byte. The log and the training state contain the seconds
since the start of the run. The plan in the training state contains the measured speed of the machine.
"""

import json
import re
from pathlib import Path
from typing import Any

from charrnn.io import container
from charrnn.io.container import MODEL, PROMPT_STATE, RUN_STATE

STATE_SUFFIX = ".training.safetensors"


def read_files(directory: Path, *, same_overrides: bool = True) -> dict[str, Any]:
    """Return the contents of all files under a directory by relative path, to be compared with those of another run.

    Args:
        directory: The directory.
        same_overrides: Whether both runs had the same options. Otherwise the training state lists other overrides,
            and the plan has other notes about them.

    Raises:
        Exception: If a file is torn. Files of a known type are checked, and backups must be readable.
    """
    paths = sorted(path for path in directory.rglob("*") if path.is_file())
    files = {relative_name(path, directory): read_file(path, same_overrides=same_overrides) for path in paths}
    return {name: contents for name, contents in files.items() if not name.endswith(".old")}


def relative_name(path: Path, directory: Path) -> str:
    """Return the path below a directory, without the digest of the directory in the name of a file of cached ids."""
    return re.sub(r"-[0-9a-f]{12}\.ids", ".ids", str(path.relative_to(directory)))


def read_file(path: Path, *, same_overrides: bool = True) -> Any:
    """Return the contents of a file without times.

    Raises:
        Exception: If the file is torn.
    """
    data = path.read_bytes()
    name = path.name.removesuffix(".old")
    if name.endswith(STATE_SUFFIX):
        return _read_state(path, same_overrides)
    if name.endswith(".safetensors"):
        container.from_bytes(MODEL, data, path)
    elif name.endswith(".state"):
        container.from_bytes(PROMPT_STATE, data, path)
    elif name.endswith(".jsonl"):
        assert data[-1:] in (b"", b"\n"), f"{path} is torn"
        return [_without_seconds(json.loads(line)) for line in data.splitlines()]
    elif name.endswith(".ids"):  # the rest contains times of the text
        length = int.from_bytes(data[-16:-8], "little")
        assert data[-8:] == b"charrnn\n", f"{path} is torn"
        return data[: -48 - length]
    return data


def _read_state(path: Path, same_overrides: bool) -> Any:
    header, arrays, _ = container.read(RUN_STATE, path)
    del header["plan"]["seconds"]
    if not same_overrides:
        del header["overrides"], header["plan"]["notes"]
    for group in ("current", "last_good"):
        header[group] = _without_seconds(header[group])
        header[group]["evaluations"] = [_without_seconds(entry) for entry in header[group]["evaluations"]]
    return header, {name: (array.dtype.str, array.shape, array.tobytes()) for name, array in arrays.items()}


def _without_seconds(entry: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in entry.items() if name != "seconds"}
