"""Invalid input: the error is one line with a reason and advice, and no file is changed."""

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
ERROR_LINE = re.compile(r"charrnn: (?P<what>.+?): (?P<reason>.+?); (?P<advice>.+)\n")


def error_of(result: subprocess.CompletedProcess[bytes], code: int = 1) -> re.Match[str]:
    """Return the parts of the one-line error of a failed command."""
    assert (result.returncode, result.stdout) == (code, b""), result
    match = ERROR_LINE.fullmatch(one_line(result))
    assert match, result.stderr
    return match


@pytest.fixture(scope="module")
def model(tiny: checkpoint.Checkpoint) -> bytes:
    return checkpoint.to_bytes(tiny)


@pytest.fixture
def directory(tmp_path: Path, model: bytes) -> Path:
    """A directory with a text and a model, which no failed command may change."""
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
def test_an_unusable_text_is_named_with_the_reason(
    charrnn: Charrnn, directory: Path, name: str, content: bytes | None, reason: str
) -> None:
    if content is not None:
        (directory / name).write_bytes(content)
    before = files(directory)

    error = error_of(charrnn("train", name))

    assert (error["what"], error["reason"]) == (name, reason)
    assert files(directory) == before


def test_a_directory_without_text_is_named(charrnn: Charrnn, directory: Path) -> None:
    (directory / "pictures").mkdir()
    (directory / "pictures" / "a.png").write_bytes(b"\x89PNG")

    error = error_of(charrnn("train", "pictures"))

    assert (error["what"], error["reason"]) == ("pictures", "is a directory with no .txt file in it")


def test_an_empty_name_is_not_the_current_directory(charrnn: Charrnn, directory: Path) -> None:
    assert charrnn("corpus", "check", "").returncode == 1
    assert charrnn("train", "").returncode == 1
    assert set(files(directory)) == {"corpus.txt", "checkpoints", "checkpoints/tiny.safetensors"}


def test_one_bad_file_among_several_is_named(charrnn: Charrnn, directory: Path) -> None:
    (directory / "bad.txt").write_bytes(b"ab\xffcd")

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
    ids=["cp1251", "koi8-r", "utf-16 without a byte order mark", "binary"],
)
def test_the_error_for_another_encoding_gives_the_position_and_a_suggestion(
    charrnn: Charrnn, directory: Path, data: bytes, reason: str, advice: str
) -> None:
    (directory / "ode.txt").write_bytes(data)

    error = error_of(charrnn("train", "ode.txt"))

    assert error["reason"] == reason
    assert error["advice"].endswith(advice)


@pytest.mark.parametrize("encoding", ["cp1251", "koi8-r", "utf-16-le"])
def test_the_suggested_encoding_decodes_the_text(charrnn: Charrnn, directory: Path, encoding: str) -> None:
    text = RUSSIAN if encoding != "utf-16-le" else CORPUS
    (directory / "my ode.txt").write_bytes(text.encode(encoding))
    option = (
        error_of(charrnn("corpus", "check", "my ode.txt"))["advice"].partition("add ")[2].partition(",")[0].split()
    )

    checked = charrnn("corpus", "check", "my ode.txt", *option, "--json")

    assert json.loads(checked.stdout)["sha256"] == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.skipif(shutil.which("iconv") is None, reason="no iconv")
def test_the_suggested_command_repairs_a_damaged_text(charrnn: Charrnn, directory: Path) -> None:
    (directory / "my ode.txt").write_bytes(RUSSIAN.encode() + b"\xff" + RUSSIAN.encode())
    command = error_of(charrnn("train", "my ode.txt"))["advice"].partition("bytes: ")[2]

    repaired = subprocess.run(["bash", "-c", command], cwd=directory, capture_output=True, check=False)

    assert repaired.stdout.decode() == RUSSIAN * 2


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"o", "contains fewer than two characters, so there is nothing to predict"),
        ("fox é\n".encode(), "the model never saw 'é' (U+00E9 LATIN SMALL LETTER E WITH ACUTE)"),
    ],
)
def test_a_text_that_cannot_be_evaluated_is_named_before_torch_is_imported(
    directory: Path, without_torch: Charrnn, content: bytes, reason: str
) -> None:
    (directory / "text.txt").write_bytes(content)

    error = error_of(without_torch("eval", "tiny", "text.txt"))

    assert (error["what"], error["reason"]) == ("text.txt", reason)


def test_an_error_escapes_the_control_characters_of_a_name(charrnn: Charrnn, directory: Path) -> None:
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
def test_a_prompt_with_an_unknown_character_names_it(
    charrnn: Charrnn, directory: Path, prompt: str, named: str
) -> None:
    error = error_of(charrnn("sample", "tiny", "-p", prompt))

    assert error["what"] == "the prompt"
    assert named in error["reason"]
    assert "--unknown skip" in error["advice"]
    assert "\x1b" not in error[0]


def test_unknown_skip_leaves_out_the_characters_with_a_note(charrnn: Charrnn, directory: Path) -> None:
    plain = charrnn("sample", "tiny", "--seed", 1, "--echo", "-p", "the fox")
    result = charrnn("sample", "tiny", "--seed", 1, "--echo", "-p", "thée €fox", "--unknown", "skip")

    assert plain.stdout.startswith(b"the fox")
    assert (result.returncode, result.stdout) == (0, plain.stdout)
    assert "skipped characters that the model never saw: 'é' (U+00E9 " in one_line(result)
    assert "'€' (U+20AC " in one_line(result)


def test_quiet_hides_the_note_about_skipped_characters(charrnn: Charrnn, directory: Path) -> None:
    assert charrnn("sample", "tiny", "-q", "-n", 5, "-p", "fé", "--unknown", "skip").stderr == b""


def test_a_prompt_from_stdin_that_is_not_utf8_is_rejected(charrnn: Charrnn, directory: Path) -> None:
    error = error_of(charrnn("sample", "tiny", "-p", "-", input=b"ab\xff"))

    assert "byte 0xff at offset 2" in error["reason"]


# Model files


SAMPLED = pytest.param(7, id="sampled")
ALL = pytest.param(1, id="all", marks=pytest.mark.slow)


@pytest.mark.parametrize("stride", [SAMPLED, ALL])
def test_a_truncated_model_is_rejected(model: bytes, tmp_path: Path, stride: int) -> None:
    path = tmp_path / "cut.safetensors"
    for length in [*range(0, 2000, 3 * stride), *range(2000, len(model), 97 * stride), len(model) - 1]:
        path.write_bytes(model[:length])
        with pytest.raises(ModelFileError, match=r"is empty|truncated|damaged|not a safetensors file"):
            checkpoint.load(path)


@pytest.mark.parametrize("stride", [SAMPLED, ALL])
def test_a_model_with_one_changed_byte_is_rejected(model: bytes, tmp_path: Path, stride: int) -> None:
    path = tmp_path / "flipped.safetensors"
    positions = [*range(16), *range(16, 2000, stride), *range(2000, len(model), 19 * stride), len(model) - 1]
    for position in positions:
        changed = bytes([model[position] ^ 1 << position % 8])
        path.write_bytes(model[:position] + changed + model[position + 1 :])
        with pytest.raises(ModelFileError):
            checkpoint.load(path)


def safetensors_file(arrays: dict[str, np.ndarray], metadata: dict[str, str] | None = None) -> bytes:
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
    "a wrong header size": (lambda model: b"\xff\xff" + model[2:], "is truncated in its header"),
    "a huge header size": (lambda model: b"\xff" * 8 + model[8:], "more than the 100,000,000 of the format"),
    "text": (lambda model: CORPUS.encode(), "is not a safetensors file"),
    "of another program": (lambda model: safetensors_file({"a": np.zeros(3, np.float32)}), "but not a charrnn model"),
    "of another program, with metadata": (
        lambda model: safetensors_file({}, {"format": "pt"}),
        "but not a charrnn model",
    ),
    "an empty charrnn header": (lambda model: safetensors_file({}, {"charrnn": "{}"}), "is damaged"),
    "a deeply nested header": (lambda model: safetensors_file({}, {"charrnn": "[" * 100_000}), "is damaged"),
    "a newer format": (
        lambda model: container.to_bytes(replace(container.MODEL, format=9), {}, {}),
        f"has file format 9, but this charrnn reads format {container.MODEL.format}",
    ),
}


@pytest.mark.parametrize("bad", BAD_MODELS)
def test_a_bad_model_file_is_a_one_line_error_and_stays_unchanged(
    charrnn: Charrnn, directory: Path, model: bytes, bad: str
) -> None:
    make, reason = BAD_MODELS[bad]
    data = make(model)
    assert data != model
    (directory / "bad.safetensors").write_bytes(data)

    error = error_of(charrnn("sample", "bad.safetensors"))

    assert error["what"] == "bad.safetensors"
    assert re.search(reason, error["reason"])
    assert (directory / "bad.safetensors").read_bytes() == data


@pytest.mark.parametrize("command", ["info bad.safetensors", "eval bad.safetensors corpus.txt"])
def test_info_and_eval_reject_a_bad_model_too(
    directory: Path, without_torch: Charrnn, model: bytes, command: str
) -> None:
    (directory / "bad.safetensors").write_bytes(model[:-1])

    assert "is truncated" in error_of(without_torch(*command.split()))["reason"]


class MakesDirectory:
    """An object that creates a directory when it is unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, ("sprung",)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_with_the_suffix_of_a_model_is_not_executed(
    charrnn: Charrnn, directory: Path, protocol: int
) -> None:
    (directory / "bad.safetensors").write_bytes(pickle.dumps(MakesDirectory(), protocol))

    error_of(charrnn("sample", "bad.safetensors"))

    assert not (directory / "sprung").exists()


def test_a_file_of_torch_save_is_recognized_and_not_executed(charrnn: Charrnn, directory: Path) -> None:
    with zipfile.ZipFile(directory / "bad.safetensors", "w") as archive:
        archive.writestr("model/data.pkl", pickle.dumps(MakesDirectory()))

    error = error_of(charrnn("info", "bad.safetensors"))

    assert error["reason"] == "is a pickle, which may run code when opened"
    assert not (directory / "sprung").exists()


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
def test_an_invalid_model_path_is_named_with_the_reason(
    charrnn: Charrnn, directory: Path, name: str, reason: str
) -> None:
    error = error_of(charrnn("sample", name))

    assert (error["what"], error["reason"]) == (name, reason)


def test_the_error_for_a_directory_without_models_suggests_training(charrnn: Charrnn, tmp_path: Path) -> None:
    error = error_of(charrnn("sample"))

    assert (error["what"], error["reason"]) == ("checkpoints", "contains no model")
    assert "charrnn train" in error["advice"]


# Output paths


def test_a_model_is_not_overwritten_without_force(charrnn: Charrnn, directory: Path) -> None:
    before = files(directory)

    error = error_of(charrnn("train", "corpus.txt", "-o", "tiny"))

    assert (error["what"], error["reason"]) == ("checkpoints/tiny.safetensors", "exists already")
    assert files(directory) == before


@pytest.mark.parametrize("out", ["", ".", "..", "models/", "checkpoints/", "models/."])
def test_the_output_path_must_be_a_file_name(charrnn: Charrnn, directory: Path, out: str) -> None:
    before = files(directory)

    assert error_of(charrnn("train", "corpus.txt", "-o", out))["reason"] == "is not a file name"
    assert files(directory) == before


@pytest.mark.parametrize("out", ["corpus.txt/m", "corpus.txt/deep/er/m", "/proc/m", "/proc/1/m", "/dev/null/m"])
def test_an_unwritable_output_path_is_reported_before_training(
    directory: Path, without_torch: Charrnn, out: str
) -> None:
    before = files(directory)

    error = error_of(without_torch("train", "corpus.txt", "-o", out, *QUICK))

    assert error["what"] == f"{out}.safetensors"
    assert error["reason"].startswith("cannot be written (")
    assert files(directory) == before


@pytest.mark.parametrize("kind", ["pipe", "directory", "link to a directory"])
def test_only_a_regular_file_is_replaced(directory: Path, without_torch: Charrnn, kind: str) -> None:
    path = directory / "m.safetensors"
    make = {"pipe": os.mkfifo, "directory": os.mkdir, "link to a directory": partial(os.symlink, "checkpoints")}
    make[kind](path)

    error = error_of(without_torch("train", "corpus.txt", "-o", "m.safetensors", "--force"))

    assert (error["what"], error["reason"]) == ("m.safetensors", "is not a regular file")


def test_a_full_disk_leaves_the_old_model_unchanged(charrnn: Charrnn, directory: Path) -> None:
    before = files(directory)

    with file_size_limit(4096):
        result = charrnn("train", "corpus.txt", "-q", "--force", "-o", "tiny", *QUICK)

    assert error_of(result)["reason"].startswith("cannot be written (")
    assert files(directory) == before
