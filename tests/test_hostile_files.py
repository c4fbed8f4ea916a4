"""Files with valid digests and senseless contents: each is refused in one line, or does no harm.

A fuzzer changes fields and arrays of a valid file, and corrects the digests. `-m slow` tries 10,000 of each kind.
Set FUZZ_SEED for other files.
"""

import hashlib
import json
import os
import random
import re
import subprocess
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from charrnn.config import ReadConfig
from charrnn.data import corpus_reader, token_cache
from charrnn.data.token_cache import TokenCache
from charrnn.errors import CacheWarning
from charrnn.io import container
from charrnn.io.container import MODEL, PROMPT_STATE, RUN_STATE, FileKind
from charrnn.rnn import costs
from tests.conftest import one_line, within
from tests.hostile import encode, hostile_arrays, hostile_json

SEED = int(os.environ.get("FUZZ_SEED", "0"))
TIMES = [300, pytest.param(10_000, marks=pytest.mark.slow)]
TEXT = "she sells sea shells by the sea shore\n" * 20
TRAIN = ("corpus.txt", "-o", "./m", "--hidden", "4", "--layers", "2", "--batch-size", "3", "--seq-length", "8",
         "--threads", "1", "--precision", "fp32", "--engine", "torch", "--patience", "0")  # fmt: skip

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a model, a training state, a log and a prompt state."""
    directory = tmp_path_factory.mktemp("origin")
    (directory / "corpus.txt").write_text(TEXT)
    run = within(directory)
    trained = run("train", *TRAIN, "--steps", "6", "--validation", "0.3")
    assert trained.returncode == 0, trained.stderr
    assert run("sample", "./m.safetensors", "-p", "she", "--save-state", "state", "-n", "1").returncode == 0
    return directory


def hostile_container(kind: FileKind, path: Path, rng: random.Random) -> bytes:
    """Return a container file with a changed header, changed arrays or a changed safetensors header.

    The digest is valid.
    """
    contents, choice = container.read(kind, path), rng.random()
    if choice < 0.1:
        return hostile_safetensors(path.read_bytes(), rng)
    if choice < 0.75:
        header = hostile_json(contents.header, rng)
        arrays = contents.arrays
    else:
        header, arrays = contents.header, hostile_arrays(contents.arrays, rng)
    return container.to_bytes(kind, header if isinstance(header, dict) else {"x": header}, arrays)


def hostile_safetensors(data: bytes, rng: random.Random) -> bytes:
    """Return a container file whose list of tensors is changed, with a valid digest."""
    size = int.from_bytes(data[:8], "little")
    original = json.loads(data[8 : 8 + size])
    metadata = original.pop("__metadata__")
    changed = hostile_json(original, rng)
    header = {"__metadata__": metadata, **changed} if isinstance(changed, dict) else changed
    encoded, body = encode(header), data[8 + size :]
    entry = re.compile(rb'(\\"digest\\": \\")[0-9a-f]{64}')
    blank = entry.sub(
        rb"\g<1>" + container.BLANK_DIGEST.encode(), len(encoded).to_bytes(8, "little") + encoded + body
    )
    return entry.sub(rb"\g<1>" + hashlib.sha256(blank).hexdigest().encode(), blank)


def check_result(result: "subprocess.CompletedProcess[bytes]", info: object) -> bool:
    """Check that a command succeeded, or failed with one line. Return whether it succeeded."""
    assert b"Traceback" not in result.stderr, (info, result.stderr.decode())
    assert b"Warning" not in result.stderr, (info, result.stderr.decode())
    if result.returncode == 0:
        return True
    assert result.returncode in (1, 2), (info, result.returncode)
    last = result.stderr.decode().splitlines()[-1]
    assert last.startswith("charrnn: "), (info, last)
    assert len(last) < 1000, (info, last)
    return False


def check_numbers(output: bytes, info: object) -> None:
    """Check that every line is JSON, without infinity or NaN."""
    for line in output.splitlines():
        json.loads(line, parse_constant=lambda constant: pytest.fail(f"{info}: {constant}"))


@pytest.mark.parametrize("times", TIMES)
def test_a_hostile_model_is_rejected_or_harmless(origin: Path, tmp_path: Path, times: int) -> None:
    (tmp_path / "corpus.txt").write_text(TEXT)
    charrnn, accepted = within(tmp_path), 0
    commands = [
        ("sample", "x.safetensors", "-n", "3", "--json", "--logprobs", "2"),
        ("sample", "x.safetensors", "-n", "3", "--count", "2", "--json", "--temp", "0"),
        ("info", "x.safetensors"),
        ("info", "x.safetensors", "--json"),
        ("eval", "x.safetensors", "corpus.txt", "--json", "--unknown", "skip"),
        ("score", "x.safetensors", "corpus.txt", "--json"),
        ("eval", "x.safetensors", "corpus.txt", "--split", "validation", "--json"),
    ]
    for number in range(times):
        rng = random.Random(f"{SEED} model {number}")
        (tmp_path / "x.safetensors").write_bytes(hostile_container(MODEL, origin / "m.safetensors", rng))
        chosen = rng.sample(commands, 2)
        for command in chosen:
            result = charrnn(*command)
            if check_result(result, (number, command)):
                accepted += 1
                if "--json" in command:
                    check_numbers(result.stdout, (number, command))
            elif b"does not describe a model" in result.stderr or b"tensors" in result.stderr:
                one_line(result)
                break
    assert 0 < accepted < 2 * times


@pytest.mark.parametrize("times", TIMES)
def test_a_hostile_training_state_is_rejected_or_harmless(origin: Path, tmp_path: Path, times: int) -> None:
    charrnn, accepted = within(tmp_path), 0
    (tmp_path / "corpus.txt").write_text(TEXT)
    state = tmp_path / "m.training.safetensors"
    for number in range(times):
        rng = random.Random(f"{SEED} state {number}")
        for path in tmp_path.glob("m.*"):
            path.unlink()
        state.write_bytes(hostile_container(RUN_STATE, origin / "m.training.safetensors", rng))
        budget = rng.choice([(), ("--steps", "7"), ("--steps", "8"), ("--epochs", "1"), ("--minutes", "0.001")])
        result = charrnn("train", "corpus.txt", "-o", "./m", "--resume", *budget)
        accepted += check_result(result, (number, budget))
        assert not list(tmp_path.glob(".*")), number
    assert 0 < accepted < times


@pytest.mark.parametrize("times", TIMES)
def test_a_hostile_prompt_state_is_rejected_or_harmless(origin: Path, tmp_path: Path, times: int) -> None:
    charrnn, accepted = within(origin), 0
    for number in range(times):
        rng = random.Random(f"{SEED} prompt {number}")
        (tmp_path / "state").write_bytes(hostile_container(PROMPT_STATE, origin / "state", rng))
        options = rng.choice([("--json",), ("--count", "2", "--json"), ("--json", "--precision", "fp32")])
        result = charrnn("sample", "./m.safetensors", "--load-state", tmp_path / "state", "-n", "3", *options)
        if check_result(result, number):
            accepted += 1
            check_numbers(result.stdout, number)
        else:
            one_line(result)
    assert 0 < accepted < times


@pytest.mark.parametrize("times", TIMES)
def test_a_hostile_log_is_rejected_or_harmless(origin: Path, tmp_path: Path, times: int) -> None:
    charrnn, accepted = within(tmp_path), 0
    (tmp_path / "m.safetensors").write_bytes((origin / "m.safetensors").read_bytes())
    entries = [json.loads(line) for line in (origin / "m.jsonl").read_text().splitlines()]
    for number in range(times):
        rng = random.Random(f"{SEED} log {number}")
        lines = hostile_json(entries, rng)
        lines = lines if isinstance(lines, list) else [lines]
        (tmp_path / "m.jsonl").write_bytes(b"".join(encode(line) + b"\n" for line in lines))
        image = ("-o", rng.choice(["x.png", "x.svg"])) if rng.random() < 0.03 else ()
        result = charrnn("log", "m.safetensors", *image, *(("--json",) if rng.random() < 0.2 and not image else ()))
        if check_result(result, number):
            accepted += 1
        else:
            one_line(result)
    assert 0 < accepted < times


@pytest.mark.parametrize("times", TIMES)
@pytest.mark.parametrize("documents", ["none", "lines"])
def test_hostile_cached_ids_are_rejected_or_harmless(
    documents: Any, tmp_path: Path, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_cache, "MAX_MEMORY_BYTES", 0)
    monkeypatch.chdir(tmp_path)
    Path("corpus.txt").write_text(TEXT)
    config, cache = ReadConfig(documents=documents), TokenCache(Path("cache"), always=True)
    expected = corpus_reader.read_corpus(["corpus.txt"], config, cache=cache)
    (path,) = Path("cache").iterdir()
    data = path.read_bytes()
    size = int.from_bytes(data[-16:-8], "little")
    body, header = data[: -48 - size], json.loads(data[-48 - size : -48])
    num_rejected = 0
    for number in range(times):
        rng = random.Random(f"{SEED} ids {number}")
        changed, fields = bytearray(body), header
        if rng.random() < 0.3:
            start = rng.randrange(len(changed))
            changed[start : start + rng.randint(1, 9)] = rng.randbytes(rng.choice([0, 1, 8]))
        else:
            fields = hostile_json(header, rng)
        if isinstance(fields, dict) and rng.random() < 0.9:
            fields = {**fields, "digest": hashlib.sha256(hashlib.sha256(changed).digest()).hexdigest()}
        json_bytes = encode(fields)
        trailer = hashlib.sha256(json_bytes).digest() + len(json_bytes).to_bytes(8, "little") + data[-8:]
        path.write_bytes(changed + json_bytes + trailer)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            corpus = corpus_reader.read_corpus(["corpus.txt"], config, cache=cache)
        assert all(warning.category is CacheWarning for warning in caught), number
        num_rejected += not corpus.cached
        training, validation = corpus.split(100)
        for view in (corpus.tokens(), training, validation):
            ids = view.take(np.arange(len(view)))
            assert len(ids) == 0 or 0 <= ids.min() <= ids.max() < len(corpus.vocabulary), number
        if not corpus.cached:
            assert (corpus.sha256, corpus.counts) == (expected.sha256, expected.counts)
    assert 0 < num_rejected < times


@pytest.mark.parametrize("times", TIMES)
def test_hostile_costs_are_ignored(times: int) -> None:
    assert costs.save_costs(costs.TYPICAL)
    path = costs._path()
    assert path is not None
    saved = json.loads(path.read_text())
    for number in range(times):
        rng = random.Random(f"{SEED} costs {number}")
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encode(hostile_json(saved, rng)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CacheWarning)
            loaded = costs.load_costs()
        assert all(isinstance(cost, float) and 0 < cost < 1e4 for cost in vars(loaded).values()), number
