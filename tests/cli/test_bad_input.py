"""Whatever a user hands in that cannot work: one line that says what, why and what to do, and nothing lost."""

import hashlib
import json
import os
import pickle
import re
import shutil
import subprocess
import zipfile
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from charrnn import checkpoint
from charrnn.errors import ModelFileError
from charrnn.io import container
from tests.cli.conftest import CORPUS, QUICK, file_size_limit, files
from tests.conftest import Charrnn, one_line

RUSSIAN = "Я помню чудное мгновенье: передо мной явилась ты, как мимолётное виденье, как гений чистой красоты.\n" * 5
FORM = re.compile(r"charrnn: (?P<what>.+?): (?P<reason>.+?); (?P<advice>.+)\n")


def error_of(result: subprocess.CompletedProcess[bytes], code: int = 1) -> re.Match[str]:
    """The parts of the one line that a failed command leaves."""
    assert (result.returncode, result.stdout) == (code, b""), result
    parts = FORM.fullmatch(one_line(result))
    assert parts, result.stderr
    return parts


@pytest.fixture(scope="module")
def model(tiny: checkpoint.Checkpoint) -> bytes:
    return checkpoint.to_bytes(tiny)


@pytest.fixture
def folder(tmp_path: Path, model: bytes) -> Path:
    """A folder with a text and a model; nothing that fails may change it."""
    (tmp_path / "corpus.txt").write_text(CORPUS)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "tiny.safetensors").write_bytes(model)
    return tmp_path


# Texts


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("nothing.txt", None, "no such file or directory"),
        ("empty.txt", b"", "is empty"),
        ("mark.txt", b"\xef\xbb\xbf", "is empty"),
        ("one.txt", b"a", "contains fewer than two characters, so there is nothing to predict"),
        ("one.txt", b"\r\n", "contains fewer than two characters, so there is nothing to predict"),
        ("bad.txt", b"fine so far\xff" * 9, "is not UTF-8: byte 0xff at line 1, column 12 (byte 11)"),
        ("cut.txt", "é".encode()[:1], "is not UTF-8: byte 0xc3 at line 1, column 1 (byte 0)"),
        ("surrogate.txt", b"ab\xed\xa0\x80", "is not UTF-8: byte 0xed at line 1, column 3 (byte 2)"),
    ],
)
def test_a_text_that_cannot_be_used_is_named_with_the_reason(
    charrnn: Charrnn, folder: Path, name: str, content: bytes | None, reason: str
) -> None:
    if content is not None:
        (folder / name).write_bytes(content)
    before = files(folder)

    error = error_of(charrnn("train", name))

    assert (error["what"], error["reason"]) == (name, reason)
    assert files(folder) == before


def test_a_directory_without_text_is_named(charrnn: Charrnn, folder: Path) -> None:
    (folder / "pictures").mkdir()
    (folder / "pictures" / "a.png").write_bytes(b"\x89PNG")

    error = error_of(charrnn("train", "pictures"))

    assert (error["what"], error["reason"]) == ("pictures", "is a directory with no .txt file in it")


def test_an_empty_name_is_not_the_current_directory(charrnn: Charrnn, folder: Path) -> None:
    assert charrnn("corpus", "check", "").returncode == 1
    assert charrnn("train", "").returncode == 1
    assert set(files(folder)) == {"corpus.txt", "checkpoints", "checkpoints/tiny.safetensors"}


def test_one_bad_file_among_good_ones_is_named(charrnn: Charrnn, folder: Path) -> None:
    (folder / "bad.txt").write_bytes(b"ab\xffcd")

    assert error_of(charrnn("train", "corpus.txt", "bad.txt"))["what"] == "bad.txt"
    assert error_of(charrnn("train", "."))["what"] == "bad.txt"


@pytest.mark.parametrize(
    ("data", "reason", "advice"),
    [
        (
            ("Ode\n: " + RUSSIAN).encode("cp1251"),
            "is not UTF-8: byte 0xdf at line 2, column 3 (byte 6)",
            "add --encoding cp1251, the most likely one",
        ),
        (
            b"plain, then: " + RUSSIAN.encode("koi8-r"),
            "is not UTF-8: byte 0xf1 at line 1, column 14 (byte 13)",
            "add --encoding koi8-r, the most likely one",
        ),
        (
            "Ode".encode("utf-16-le") * 99,
            "contains a NUL byte at line 1, column 2 (byte 1)",
            "add --encoding utf-16-le, the most likely one",
        ),
        (
            bytes(range(256)) * 8,
            "contains a NUL byte at line 1, column 1 (byte 0)",
            "or add --unit byte to train on a binary file",
        ),
    ],
    ids=["cp1251", "koi8-r", "utf-16 without a mark", "binary"],
)
def test_a_text_in_another_encoding_is_told_the_place_and_the_likely_one(
    charrnn: Charrnn, folder: Path, data: bytes, reason: str, advice: str
) -> None:
    (folder / "ode.txt").write_bytes(data)

    error = error_of(charrnn("train", "ode.txt"))

    assert error["reason"] == reason
    assert error["advice"].endswith(advice)


@pytest.mark.parametrize("encoding", ["cp1251", "koi8-r", "utf-16-le"])
def test_the_encoding_that_is_advised_mends_it(charrnn: Charrnn, folder: Path, encoding: str) -> None:
    text = RUSSIAN if encoding != "utf-16-le" else CORPUS
    (folder / "my ode.txt").write_bytes(text.encode(encoding))
    option = (
        error_of(charrnn("corpus", "check", "my ode.txt"))["advice"].partition("add ")[2].partition(",")[0].split()
    )

    checked = charrnn("corpus", "check", "my ode.txt", *option, "--json")

    assert json.loads(checked.stdout)["sha256"] == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.skipif(shutil.which("iconv") is None, reason="no iconv")
def test_the_command_that_is_advised_mends_a_damaged_text(charrnn: Charrnn, folder: Path) -> None:
    (folder / "my ode.txt").write_bytes(RUSSIAN.encode() + b"\xff" + RUSSIAN.encode())
    command = error_of(charrnn("train", "my ode.txt"))["advice"].partition("bytes: ")[2]

    mended = subprocess.run(["bash", "-c", command], cwd=folder, capture_output=True, check=False)

    assert mended.stdout.decode() == RUSSIAN * 2


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"o", "contains fewer than two characters, so there is nothing to predict"),
        ("fox é\n".encode(), "the model never saw 'é' (U+00E9 LATIN SMALL LETTER E WITH ACUTE)"),
    ],
)
def test_a_text_that_cannot_be_evaluated_is_named_before_torch_is_loaded(
    folder: Path, without_torch: Charrnn, content: bytes, reason: str
) -> None:
    (folder / "text.txt").write_bytes(content)

    error = error_of(without_torch("eval", "tiny", "text.txt"))

    assert (error["what"], error["reason"]) == ("text.txt", reason)


def test_an_error_shows_the_control_characters_of_a_name_as_escapes(charrnn: Charrnn, folder: Path) -> None:
    error = error_of(charrnn("sample", "a\x1b[31m\nb.safetensors"))

    assert error["what"] == r"a\x1b[31m\nb.safetensors"


# Prompts


@pytest.mark.parametrize(
    ("prompt", "named"),
    [
        ("café", "'é' (U+00E9 LATIN SMALL LETTER E WITH ACUTE)"),
        ("a\tb", "U+0009"),
        ("a\x1b[31m", "'1' (U+0031 DIGIT ONE)"),
        ("𝄞", "'𝄞' (U+1D11E MUSICAL SYMBOL G CLEF)"),
    ],
)
def test_a_prompt_with_an_unknown_character_names_it(charrnn: Charrnn, folder: Path, prompt: str, named: str) -> None:
    error = error_of(charrnn("sample", "tiny", "-p", prompt))

    assert error["what"] == "the prompt"
    assert named in error["reason"]
    assert "--unknown skip" in error["advice"]
    assert "\x1b" not in error[0]


def test_unknown_skip_drops_the_characters_with_a_note(charrnn: Charrnn, folder: Path) -> None:
    plain = charrnn("sample", "tiny", "--seed", 1, "--echo", "-p", "the fox")
    result = charrnn("sample", "tiny", "--seed", 1, "--echo", "-p", "thée €fox", "--unknown", "skip")

    assert plain.stdout.startswith(b"the fox")
    assert (result.returncode, result.stdout) == (0, plain.stdout)
    assert "skipped characters that the model never saw: 'é' (U+00E9 " in one_line(result)
    assert "'€' (U+20AC " in one_line(result)


def test_the_note_about_dropped_characters_is_not_for_the_quiet(charrnn: Charrnn, folder: Path) -> None:
    assert charrnn("sample", "tiny", "-q", "-n", 5, "-p", "fé", "--unknown", "skip").stderr == b""


def test_a_prompt_from_stdin_that_is_not_utf8_is_refused(charrnn: Charrnn, folder: Path) -> None:
    error = error_of(charrnn("sample", "tiny", "-p", "-", input=b"ab\xff"))

    assert "byte 0xff at offset 2" in error["reason"]


# Model files


SAMPLED = pytest.param(7, id="sampled")
ALL = pytest.param(1, id="all", marks=pytest.mark.slow)


@pytest.mark.parametrize("stride", [SAMPLED, ALL])
def test_a_model_cut_short_anywhere_is_refused(model: bytes, tmp_path: Path, stride: int) -> None:
    path = tmp_path / "cut.safetensors"
    for length in [*range(0, 2000, 3 * stride), *range(2000, len(model), 97 * stride), len(model) - 1]:
        path.write_bytes(model[:length])
        with pytest.raises(ModelFileError, match=r"is empty|truncated|damaged|not a safetensors file"):
            checkpoint.load(path)


@pytest.mark.parametrize("stride", [SAMPLED, ALL])
def test_a_model_with_one_byte_changed_anywhere_is_refused(model: bytes, tmp_path: Path, stride: int) -> None:
    path = tmp_path / "flipped.safetensors"
    places = [*range(16), *range(16, 2000, stride), *range(2000, len(model), 19 * stride), len(model) - 1]
    for position in places:
        changed = bytes([model[position] ^ 1 << position % 8])
        path.write_bytes(model[:position] + changed + model[position + 1 :])
        with pytest.raises(ModelFileError):
            checkpoint.load(path)


def foreign(arrays: dict[str, np.ndarray], metadata: dict[str, str] | None = None) -> bytes:
    return safetensors.numpy.save(arrays, metadata)


BAD_MODELS = {
    "empty": (lambda model: b"", "is empty"),
    "nine bytes": (lambda model: model[:9], "is truncated in its header"),
    "half a header": (lambda model: model[:500], "is truncated in its header"),
    "half": (lambda model: model[: len(model) // 2], r"is truncated: \d+ of \d+ bytes"),
    "a byte short": (lambda model: model[:-1], r"is truncated: \d+ of \d+ bytes"),
    "a byte too long": (lambda model: model + b"\0", "is damaged"),
    "a bit in the body": (lambda model: model[:-7] + bytes([model[-7] ^ 4]) + model[-6:], "is damaged"),
    "a digit in the header": (lambda model: model.replace(b'hidden\\": 16', b'hidden\\": 17'), "is damaged"),
    "its size": (lambda model: b"\xff" * 8 + model[8:], "is truncated in its header"),
    "text": (lambda model: CORPUS.encode(), "is not a safetensors file"),
    "another's": (lambda model: foreign({"a": np.zeros(3, np.float32)}), "but not a charrnn model"),
    "another's, with notes": (lambda model: foreign({}, {"format": "pt"}), "but not a charrnn model"),
    "half ours": (lambda model: foreign({}, {"charrnn": "{}"}), "is damaged"),
    "deep": (lambda model: foreign({}, {"charrnn": "[" * 100_000}), "is damaged"),
    "the future's": (
        lambda model: container.to_bytes(replace(container.MODEL, format=9), {}, {}),
        f"has file format 9, but this charrnn reads format {container.MODEL.format}",
    ),
}


@pytest.mark.parametrize("bad", BAD_MODELS)
def test_a_bad_model_file_is_one_line_and_stays_as_it_was(
    charrnn: Charrnn, folder: Path, model: bytes, bad: str
) -> None:
    make, reason = BAD_MODELS[bad]
    data = make(model)
    assert data != model
    (folder / "bad.safetensors").write_bytes(data)

    error = error_of(charrnn("sample", "bad.safetensors"))

    assert error["what"] == "bad.safetensors"
    assert re.search(reason, error["reason"])
    assert (folder / "bad.safetensors").read_bytes() == data


@pytest.mark.parametrize("command", ["info bad.safetensors", "eval bad.safetensors corpus.txt"])
def test_info_and_eval_refuse_a_bad_model_too(
    folder: Path, without_torch: Charrnn, model: bytes, command: str
) -> None:
    (folder / "bad.safetensors").write_bytes(model[:-1])

    assert "is truncated" in error_of(without_torch(*command.split()))["reason"]


class Trap:
    """Something that does harm when it is unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, ("sprung",)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_with_our_suffix_is_not_executed(charrnn: Charrnn, folder: Path, protocol: int) -> None:
    (folder / "bad.safetensors").write_bytes(pickle.dumps(Trap(), protocol))

    error_of(charrnn("sample", "bad.safetensors"))

    assert not (folder / "sprung").exists()


def test_a_model_of_torch_save_is_not_executed_and_told_apart(charrnn: Charrnn, folder: Path) -> None:
    with zipfile.ZipFile(folder / "bad.safetensors", "w") as archive:
        archive.writestr("model/data.pkl", pickle.dumps(Trap()))

    error = error_of(charrnn("info", "bad.safetensors"))

    assert error["reason"] == "is a pickle, which may run code when opened"
    assert not (folder / "sprung").exists()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("checkpoints", "is a directory, not a model"),
        (".", "is a directory, not a model"),
        ("nobody", "no such file (also tried checkpoints/nobody.safetensors)"),
        ("nobody.safetensors", "no such file"),
        ("no/body", "no such file"),
        ("corpus.txt/tiny", "no such file"),
        ("corpus.txt", "is not a safetensors file"),
        ("x" * 300 + ".safetensors", "file name too long"),
    ],
)
def test_what_is_no_model_is_named_with_the_reason(charrnn: Charrnn, folder: Path, name: str, reason: str) -> None:
    error = error_of(charrnn("sample", name))

    assert (error["what"], error["reason"]) == (name, reason)


def test_a_folder_without_models_says_how_to_make_one(charrnn: Charrnn, tmp_path: Path) -> None:
    error = error_of(charrnn("sample"))

    assert (error["what"], error["reason"]) == ("checkpoints", "contains no model")
    assert "charrnn train" in error["advice"]


# Places to write to


def test_a_model_is_not_overwritten_without_force(charrnn: Charrnn, folder: Path) -> None:
    before = files(folder)

    error = error_of(charrnn("train", "corpus.txt", "-o", "tiny"))

    assert (error["what"], error["reason"]) == ("checkpoints/tiny.safetensors", "exists already")
    assert files(folder) == before


@pytest.mark.parametrize("out", ["", ".", "..", "models/", "checkpoints/", "models/."])
def test_a_model_needs_the_name_of_a_file(charrnn: Charrnn, folder: Path, out: str) -> None:
    before = files(folder)

    assert error_of(charrnn("train", "corpus.txt", "-o", out))["reason"] == "is not a file name"
    assert files(folder) == before


@pytest.mark.parametrize("out", ["corpus.txt/m", "corpus.txt/deep/er/m", "/proc/m", "/proc/1/m", "/dev/null/m"])
def test_a_place_that_cannot_be_written_is_told_before_the_training(
    folder: Path, without_torch: Charrnn, out: str
) -> None:
    before = files(folder)

    error = error_of(without_torch("train", "corpus.txt", "-o", out, *QUICK))

    assert error["what"] == f"{out}.safetensors"
    assert error["reason"].startswith("cannot be written (")
    assert files(folder) == before


@pytest.mark.parametrize("kind", ["pipe", "directory", "link to a directory"])
def test_only_a_regular_file_is_replaced(folder: Path, without_torch: Charrnn, kind: str) -> None:
    path = folder / "m.safetensors"
    make = {"pipe": os.mkfifo, "directory": os.mkdir, "link to a directory": partial(os.symlink, "checkpoints")}
    make[kind](path)

    error = error_of(without_torch("train", "corpus.txt", "-o", "m.safetensors", "--force"))

    assert (error["what"], error["reason"]) == ("m.safetensors", "is not a regular file")


def test_a_disk_that_fills_up_leaves_the_old_model_whole(charrnn: Charrnn, folder: Path) -> None:
    before = files(folder)

    with file_size_limit(4096):
        result = charrnn("train", "corpus.txt", "-q", "--force", "-o", "tiny", *QUICK)

    assert error_of(result)["reason"].startswith("cannot be written (")
    assert files(folder) == before
