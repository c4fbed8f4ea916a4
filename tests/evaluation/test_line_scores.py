"""Scores of lines: the same alone and among others, in one piece and in many, by the definition."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from charrnn.checkpoint import Checkpoint
from charrnn.config import ModelConfig, ReadConfig
from charrnn.data.corpus_reader import corpus_from_text
from charrnn.data.lines import LineFragment
from charrnn.data.vocabulary import BOUNDARY, UNKNOWN, Vocabulary
from charrnn.errors import SettingError
from charrnn.evaluation.line_scores import UNKNOWN_NATS, LineScore, LineScorer
from charrnn.evaluation.metrics import mean_nats
from charrnn.rnn.backend import choose_scorer
from charrnn.rnn.torch_rnn import CharRNN

TEXT = "one two\nthree é\n"


def model(documents: str = "none", symbols: str | None = None, unit: str = "char", separator: str = "") -> Checkpoint:
    """An untrained one."""
    reading = ReadConfig(documents=documents, unit=unit, separator=separator)
    corpus = corpus_from_text(TEXT, reading)
    vocabulary = Vocabulary(symbols, unit) if symbols else corpus.vocabulary
    config = ModelConfig(hidden=12, layers=1)
    network = CharRNN(config, len(vocabulary))
    network.initialize(seed=0)
    return Checkpoint(config, vocabulary, network.tensors(), {}, reading)


MODELS = {
    "text": model(),
    "lines": model("lines"),
    "files": model("files"),
    "bytes": model(unit="byte"),
    "lines of bytes": model("lines", unit="byte"),
    "no line feed": model(symbols="ehnortwé "),
    "rare ones": model(symbols="\nehnortw" + UNKNOWN),
}
END = {"lines": BOUNDARY, "lines of bytes": BOUNDARY, "no line feed": ""}


def alone(contents: Checkpoint, line: str, end: str) -> float:
    """The definition: the line from the state after an end that nothing came before, one symbol after the other."""
    vocabulary = contents.vocabulary
    network = CharRNN(contents.model_config, len(vocabulary))
    network.load_tensors(contents.tensors)
    symbols = line.encode().decode("ascii", "surrogateescape") if vocabulary.unit == "byte" else line
    state, chances, nats = network.zero_state(1), torch.full((len(vocabulary),), -math.log(len(vocabulary))), 0.0
    for place, symbol in enumerate([end, *symbols, end]):
        if not symbol:
            continue
        index = int(vocabulary.ids_of(symbol)[0])
        unknown = index < 0 or index == vocabulary.unknown_id
        if place:
            nats += UNKNOWN_NATS * unknown + (0 if index < 0 else -float(chances[index]))
        if index >= 0:
            with torch.no_grad():
                logits, state = network(torch.tensor([[index]]), state)
            chances = logits[0, 0].log_softmax(-1)
    return nats


def scores(contents: Checkpoint, batches: list[list[LineFragment]], *, carry: bool = False) -> list[LineScore]:
    scorer = LineScorer(contents, choose_scorer(contents), carry=carry, per_symbol=True)
    return [line for batch in batches for line in scorer.score(batch)]


LINES = st.lists(st.text(alphabet="onetwhr éя", max_size=12), min_size=1, max_size=8)


@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=20)
@given(lines=LINES, cut=st.integers(0, 8))
def test_a_line_scores_as_it_does_alone(name: str, lines: list[str], cut: int) -> None:
    contents, end = MODELS[name], END.get(name, "\n")
    pieces = [LineFragment(line.encode()) for line in lines]
    found = scores(contents, [pieces[:cut], pieces[cut:]])
    assert [score.number for score in found] == [*range(1, len(lines) + 1)]
    assert [score.data.decode() for score in found] == lines
    assert [score.nats for score in found] == pytest.approx([alone(contents, line, end) for line in lines], abs=1e-4)
    for score, line in zip(found, lines, strict=True):
        symbols = line.encode().decode("ascii", "surrogateescape") if contents.vocabulary.unit == "byte" else line
        assert score.num_predictions == len(symbols) + len(end)
        assert "".join(symbol for symbol, _ in score.surprisals) == symbols + end
        assert sum(nats for _, nats in score.surprisals) == pytest.approx(score.nats, abs=1e-6)
        known = set(contents.vocabulary.symbols)
        assert score.unknown == sum(symbol not in known for symbol in symbols)


@pytest.mark.parametrize("name", ["text", "bytes"])
@settings(max_examples=20)
@given(lines=st.lists(st.text(alphabet="onetwhr é", max_size=12), min_size=2, max_size=8), closed=st.booleans())
def test_carried_on_the_lines_are_the_figure_of_the_whole_text(name: str, lines: list[str], closed: bool) -> None:
    contents = MODELS[name]
    text = "\n".join(lines) + "\n" * closed
    pieces = [LineFragment(line.encode()) for line in lines]
    if not closed:
        pieces[-1] = pieces[-1]._replace(closed=False)
        if not lines[-1]:
            pieces.pop()
    found = scores(contents, [pieces[:2], pieces[2:]], carry=True)
    size = sum(score.num_predictions for score in found)
    if size < 2:
        return
    whole = mean_nats(
        choose_scorer(contents),
        corpus_from_text(text, contents.read_config).with_vocabulary(contents.vocabulary).tokens(),
    )
    assert sum(score.nats for score in found) / size == pytest.approx(whole, abs=1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_a_long_line_may_come_in_pieces(name: str) -> None:
    contents = MODELS[name]
    line = "one two three é"
    (whole,) = scores(contents, [[LineFragment(line.encode())]])
    for size in (1, 3, 7):
        data = [line.encode()[begin : begin + size] for begin in range(0, len(line.encode()), size)]
        pieces = [LineFragment(part, last=False) for part in data] + [LineFragment(b"")]
        (found,) = scores(contents, [[piece] for piece in pieces])
        assert (found.num_predictions, found.unknown) == (whole.num_predictions, whole.unknown)
        assert found.nats == pytest.approx(whole.nats, abs=1e-4)
        assert found.data == data[0]
        assert "".join(symbol for symbol, _ in found.surprisals) == data[0].decode()
        assert not found.complete


def test_bytes_that_are_no_utf8_are_characters_that_nobody_knows() -> None:
    contents = MODELS["text"]
    good, bad, after = scores(contents, [[LineFragment(b"one"), LineFragment(b"on\xffe"), LineFragment(b"one")]])
    assert (bad.num_predictions, bad.unknown, bad.error, bad.data) == (5, 1, "byte 0xff is not UTF-8", b"on\xffe")
    assert bad.nats == pytest.approx(good.nats + UNKNOWN_NATS, abs=1e-4)
    assert after.nats == pytest.approx(good.nats, abs=1e-5)
    (cut,) = scores(contents, [[LineFragment(b"on\xc3")]])
    assert (cut.num_predictions, cut.unknown, cut.error) == (4, 1, "byte 0xc3 is not UTF-8")
    (byte,) = scores(MODELS["bytes"], [[LineFragment(b"on\xffe")]])
    assert (byte.num_predictions, byte.unknown, byte.error) == (5, 0, "")


def test_the_last_line_of_a_text_may_end_in_half_a_line_end_of_windows() -> None:
    contents, text = MODELS["text"], "one\r\ntwo\r"
    found = scores(contents, [[LineFragment(b"one\r"), LineFragment(b"two\r", closed=False)]], carry=True)
    whole = mean_nats(
        choose_scorer(contents),
        corpus_from_text(text, contents.read_config).with_vocabulary(contents.vocabulary).tokens(),
    )
    assert sum(score.nats for score in found) / sum(score.num_predictions for score in found) == pytest.approx(
        whole, abs=1e-6
    )


def test_line_ends_of_windows_are_read_as_the_model_read_its_own() -> None:
    one, two = scores(MODELS["text"], [[LineFragment(b"one"), LineFragment(b"one\r")]])
    assert one.nats == pytest.approx(two.nats, abs=1e-5)
    assert two.data == b"one\r"


def test_lines_that_are_texts_of_their_own_cannot_run_on() -> None:
    for contents, reason in (
        (MODELS["lines"], "reads each line as a separate document"),
        (model("separated", separator="\n"), "reads each line as a separate document"),
        (model("separated", separator="%\n"), "reads each line as part of one of many documents"),
    ):
        with pytest.raises(SettingError, match=reason):
            LineScorer(contents, choose_scorer(contents), carry=True)


def test_what_stands_between_documents_may_be_the_end_of_a_line() -> None:
    contents = model("separated", separator="\n")
    (score,) = scores(contents, [[LineFragment(b"one")]])
    assert score.nats == pytest.approx(alone(contents, "one", BOUNDARY), abs=1e-4)


def test_the_first_line_of_a_document_is_predicted_from_its_start() -> None:
    contents = MODELS["files"]
    found = scores(contents, [[LineFragment(b"one"), LineFragment(b"two")]], carry=True)
    ids = corpus_from_text("one\ntwo\n", contents.read_config).with_vocabulary(contents.vocabulary).tokens()
    nats = np.array([nats for score in found for _, nats in score.surprisals])
    assert len(nats) == len(ids) - 2  # all but the boundaries
    assert nats[0] != 0
