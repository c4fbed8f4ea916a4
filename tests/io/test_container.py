"""Container files: loading any bytes returns the contents or raises one kind of error."""

import contextlib
import json
import os
import random
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from charrnn.errors import DamagedFileError, ModelFileError
from charrnn.io import container
from charrnn.io.container import MODEL, RUN_STATE
from tests.conftest import POSIX

HEADER = {"vocabulary": "ab", "nested": {"list": [1, 2.5, None]}}
ARRAYS = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.zeros(2, np.float32)}
GOOD = container.to_bytes(MODEL, HEADER, ARRAYS)
TOKENS = [b"{", b"}", b"[", b"]", b'"', b":", b",", b"null", b"-1", b"1e999", b"\\ud800", b"\xff", b"\x00",
          b"[" * 3000, b"__metadata__", b"data_offsets", b"dtype", b"F32", b"shape", b"charrnn",
          b"digest", b"format"]  # fmt: skip


def opens(data: bytes) -> bool:
    """Return whether a file opens. Any error other than `ModelFileError` fails the test."""
    try:
        container.from_bytes(MODEL, data, Path("m"))
    except ModelFileError:
        return False
    return True


@given(
    header=st.dictionaries(
        st.text(),
        st.none() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        max_size=4,
    ),
    values=st.lists(st.floats(width=32, allow_nan=False), max_size=8),
)
def test_saving_and_loading_preserves_contents(header: dict[str, Any], values: list[float]) -> None:
    header = {name: value for name, value in header.items() if name not in ("format", "digest")}
    array = np.array(values, np.float32)
    data = container.to_bytes(RUN_STATE, header, {"values": array})
    loaded, arrays, _ = container.from_bytes(RUN_STATE, data, Path("m"))
    assert {name: loaded[name] for name in header} == header
    np.testing.assert_array_equal(arrays["values"], array)
    assert container.to_bytes(RUN_STATE, header, {"values": array}) == data


def test_text_that_looks_like_a_digest_is_preserved() -> None:
    header = {"a": "0" * 64, "b": '"digest": "' + "0" * 64, "c": json.dumps({"digest": "0" * 64})}
    loaded, _, _ = container.from_bytes(MODEL, container.to_bytes(MODEL, header, ARRAYS), Path("m"))
    assert {name: loaded[name] for name in header} == header


def test_every_flipped_bit_is_detected() -> None:
    for index in range(len(GOOD)):
        for bit in range(8):
            data = bytearray(GOOD)
            data[index] ^= 1 << bit
            assert not opens(bytes(data)), (index, bit)


def corrupt_header(rng: random.Random) -> bytes:
    """Return a valid file with a corrupted header and a corrected or random length field."""
    size = int.from_bytes(GOOD[:8], "little")
    header, body = bytearray(GOOD[8 : 8 + size]), GOOD[8 + size :]
    for _ in range(rng.randint(1, 4)):
        index = rng.randrange(len(header) + 1)
        kind = rng.randrange(4)
        if kind == 0:
            header[index : index + rng.randint(0, 20)] = rng.choice(TOKENS)
        elif kind == 1:
            header[index : index + 1] = bytes([rng.randrange(256)])
        elif kind == 2:
            del header[index : index + rng.randint(1, 40)]
        else:
            header[index:index] = header[rng.randrange(len(header) + 1) :][: rng.randint(1, 60)]
    length = len(header) if rng.random() < 0.8 else rng.choice([0, 2**63, 2**64 - 1, rng.randrange(2**64)])
    return length.to_bytes(8, "little") + bytes(header) + body


@pytest.mark.parametrize("times", [3000, pytest.param(1_000_000, marks=pytest.mark.slow)])
def test_every_corrupt_header_is_rejected(times: int) -> None:
    rng = random.Random(int(os.environ.get("FUZZ_SEED", "0")))
    for _ in range(times):
        data = corrupt_header(rng)
        if opens(data):  # opens only if nothing was changed
            assert data == GOOD


@settings(max_examples=30)
@given(
    st.recursive(
        st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_a_header_of_arbitrary_json_is_rejected(value: Any) -> None:
    for text in (json.dumps(value), json.dumps({"__metadata__": value}), json.dumps({"w": value})):
        data = text.encode("utf-8", "surrogatepass")
        assert not opens(len(data).to_bytes(8, "little") + data)


@pytest.mark.parametrize("kind", [MODEL, RUN_STATE])
def test_a_file_of_another_kind_is_rejected(kind: container.FileKind) -> None:
    other = RUN_STATE if kind is MODEL else MODEL
    with pytest.raises(ModelFileError, match=f"is {other.noun}, but not {kind.noun}"):
        container.from_bytes(kind, container.to_bytes(other, HEADER, ARRAYS), Path("m"))


def header_of(offsets: Any) -> bytes:
    """Return the beginning of a file that promises data up to the second of these offsets."""
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": offsets}}).encode()
    return len(header).to_bytes(8, "little") + header


def refusal(path: Path | str) -> ModelFileError:
    with pytest.raises(ModelFileError) as caught:
        container.read(MODEL, Path(path))
    return caught.value


@pytest.fixture
def pipe() -> Iterator[Callable[[bytes, bytes], str]]:
    """A function that returns the path of a pipe, from which some bytes come, and then others without an end."""
    with contextlib.ExitStack() as stack:

        def start(first: bytes, rest: bytes) -> str:
            reader, writer = os.pipe()
            stack.callback(os.close, reader)

            def feed() -> None:
                with contextlib.suppress(BrokenPipeError), open(writer, "wb", buffering=0) as file:
                    file.write(first)
                    while rest:
                        file.write(rest)

            threading.Thread(target=feed, daemon=True).start()
            return f"/dev/fd/{reader}"

        yield start


def test_a_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(GOOD)
    assert container.read(MODEL, tmp_path / "m")[0]["vocabulary"] == "ab"


@POSIX
def test_a_file_is_read_from_a_pipe(pipe: Callable[[bytes, bytes], str]) -> None:
    assert container.read(MODEL, Path(pipe(GOOD, b"")))[0]["vocabulary"] == "ab"


@POSIX
@pytest.mark.parametrize(
    ("first", "reason"),
    [
        (GOOD, "does not match|do not match its digest"),
        (b"", "not a safetensors file"),
        (b"\x80\x04", "pickle"),
        ((2**63).to_bytes(8, "little") + b"{", "header has 9,223,372,036,854,775,808 bytes"),
        ((1000).to_bytes(8, "little") + b"{", "header is invalid"),
        (header_of([0, 2**62]), r"needs 9\.2 EB of memory, but only .* is available"),
        (header_of([0, "many"]), ""),
        (header_of([0, -5]), ""),
        (header_of(None), "header is invalid"),
    ],
)
def test_an_endless_pipe_is_refused(first: bytes, reason: str, pipe: Callable[[bytes, bytes], str]) -> None:
    assert re.search(reason, refusal(pipe(first, b"\0" * 4096)).reason)


@POSIX
def test_a_device_without_an_end_is_refused() -> None:
    assert "not a safetensors file" in refusal("/dev/zero").reason


@pytest.mark.parametrize("size", [2**40, 2**62, 10**400])
def test_a_file_shorter_than_its_header_says_is_truncated(size: int, tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(header_of([0, size]) + bytes(100))
    assert "is truncated" in refusal(tmp_path / "m").reason


def test_bytes_after_the_end_are_damage(tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(GOOD + b"\0")
    assert "digest" in refusal(tmp_path / "m").reason


def test_a_file_that_does_not_fit_into_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = 10**12
    with open(tmp_path / "m", "wb") as file:  # a sparse file
        file.write(header_of([0, size]))
        file.truncate(file.tell() + size)
    monkeypatch.setattr(container, "available_memory", lambda: 10**9)
    error = refusal(tmp_path / "m")
    assert error.reason == "needs 2.0 TB of memory, but only 1.0 GB is available"
    assert not isinstance(error, DamagedFileError)  # a backup would not help
    (tmp_path / "header").write_bytes((90_000_000).to_bytes(8, "little") + b"{")
    assert refusal(tmp_path / "header").reason.startswith("needs 2.7 GB of memory")
