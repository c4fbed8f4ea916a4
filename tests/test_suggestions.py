"""Suggestions for misspelled commands, options, values and names."""

from pathlib import Path

import pytest

import charrnn as library
from charrnn import checkpoint
from tests.conftest import Charrnn, make_checkpoint


@pytest.mark.parametrize(
    ("command", "suggestion"),
    [
        ("trian x", "trian: no such command (did you mean train?)"),
        ("corpus chek x", "chek: no such command (did you mean check?)"),
        ("train x --hiden 3", "--hiden: no such option (did you mean --hidden?)"),
        ("train x --cell lsmt", "--cell: invalid value lsmt; give one of lstm, gru, rnn (did you mean lstm?)"),
        ("corpus get tiny-shakespear", "chinese-poems (did you mean tiny-shakespeare?)"),
        (
            "sample shakespaere",
            "shakespaere: no such file (did you mean shakespeare?); check the name",
        ),
    ],
)
def test_a_misspelled_name_gets_a_suggestion(charrnn: Charrnn, tmp_path: Path, command: str, suggestion: str) -> None:
    checkpoint.save(tmp_path / checkpoint.CHECKPOINT_DIR / "shakespeare.safetensors", make_checkpoint())

    result = charrnn(*command.split())

    assert suggestion in result.stderr.decode()
    assert result.stderr.count(b"\n") == 1


def test_a_name_unlike_any_other_gets_no_suggestion(charrnn: Charrnn) -> None:
    assert b"did you mean" not in charrnn("frobnicate").stderr


def test_a_misspelled_keyword_gets_a_suggestion() -> None:
    with pytest.raises(
        TypeError, match=r"train\(\) got an unexpected keyword argument 'hiden' \(did you mean hidden\?\)"
    ):
        library.train("to be or not to be", hiden=16)  # type: ignore[call-arg]
