"""Makes hostile files: valid containers, logs and cache files, with valid digests, whose contents make no sense."""

import copy
import json
import math
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray[Any]]
Path = tuple[str | int, ...]

NUMBERS = [0, 1, -1, -5, 2, 3, 255, 256, 65536, 2**31, 2**53, 2**63 - 1, 2**63, -(2**63), 10**18, 10**400,
           0.0, -0.0, 0.5, 1e-320, 1e-30, 1e9, 1e15, 1e300, -1e300, math.nan, math.inf, -math.inf, True,
           False]  # fmt: skip
OTHERS = [None, "", "x", "lstm", "cuda", "auto", "none", "lines", "bf16", "F64", "BF16", "BOOL", "F8_E4M3", "0" * 64,
          "\ud800", "\udf00", "\n\x1b[2J", "é" * 500, "1", "../../etc/passwd", [], {}, [[]], [None], {"": None},
          {"a": 1}, ["a", "a"], [2**63, 2**63], [8, 0]]  # fmt: skip


def paths_of(value: Any, path: Path = ()) -> Iterator[Path]:
    """Yield the path of every value in a JSON value."""
    if path:
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from paths_of(inner, (*path, key))


def container_at(value: Any, path: Path) -> Any:
    for key in path[:-1]:
        value = value[key]
    return value


def nested(depth: int) -> Any:
    value: Any = 0
    for _ in range(depth):
        value = [value]
    return value


def hostile_value(old: Any, rng: random.Random) -> Any:
    """Return another value: of another type, out of range, or close to the old one."""
    if isinstance(old, int | float) and not isinstance(old, bool) and rng.random() < 0.3:
        return rng.choice([old + 1, old - 1, -old, old * 2, old * 10**6, old + 0.5])
    if isinstance(old, str) and old and rng.random() < 0.3:
        return rng.choice([old[1:], old * 2, old[::-1], old + "\ud800", old.upper()])
    if isinstance(old, list) and old and rng.random() < 0.5:
        return rng.choice([old[1:], old + old, old[::-1]])
    return copy.deepcopy(rng.choice(rng.choice([NUMBERS, OTHERS, [nested(200)]])))


def hostile_json(original: Any, rng: random.Random) -> Any:
    """Return a JSON value with one or two changes: a value, a name, or a value taken from elsewhere."""
    value = copy.deepcopy(original)
    for _ in range(rng.choice([1, 1, 1, 2])):
        path = rng.choice(list(paths_of(value)) or [()])
        if not path:
            return hostile_value(value, rng)
        parent, key, kind = container_at(value, path), path[-1], rng.randrange(10)
        if kind == 0:
            del parent[key]
        elif kind == 1 and isinstance(parent, dict):
            parent[rng.choice(["", "x", "from", "step", "digest ", "\ud800", "x" * 300])] = rng.choice(OTHERS)
        elif kind == 2:
            other = rng.choice(list(paths_of(original)))
            parent[key] = copy.deepcopy(container_at(original, other)[other[-1]])
        else:
            parent[key] = hostile_value(parent[key], rng)
    return value


def hostile_arrays(original: Arrays, rng: random.Random) -> Arrays:
    """Return arrays with one change: values, shape, type, name."""
    arrays = dict(original)
    name = rng.choice(sorted(arrays))
    array, kind = arrays[name], rng.randrange(9)
    if kind == 0:
        del arrays[name]
    elif kind == 1:
        arrays[rng.choice(["x", name + ".", name.upper(), "layers.0.weight", ""])] = arrays.pop(name)
    elif kind == 2:
        arrays[name] = array.astype(rng.choice(["float64", "float16", "int32", "uint8", "bool"]))
    elif kind == 3:
        arrays[name] = rng.choice([array.ravel(), array[None], array[:-1], array[:0], np.float32(1)])
        arrays[name] = np.ascontiguousarray(arrays[name])
    elif kind == 4:
        arrays[name] = np.ascontiguousarray(array.T)
    elif kind == 5:
        arrays["more"] = array
    else:
        changed = array.copy()
        value = rng.choice([math.nan, math.inf, -math.inf, 3e38, -3e38, 1e15, -1e15, 1e30, 1e10, 0.0, 1e-45])
        if kind == 6 and changed.size:
            changed.flat[rng.randrange(changed.size)] = value
        else:
            changed[...] = value
        arrays[name] = changed
    return arrays


def encode(value: Any) -> bytes:
    """Return JSON as Python writes it, with NaN and infinity."""
    return json.dumps(value).encode()
