"""Scores of lines: alone and in batches, in one fragment and in many, compared with the definition."""

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
    """Return an untrained model."""
    read_config = ReadConfig(documents=documents, unit=unit, separator=separator)
    corpus = corpus_from_text(TEXT, read_config)
    vocabulary = Vocabulary(symbols, unit) if symbols else corpus.vocabulary
    config = ModelConfig(hidden=12, layers=1)
    network = CharRNN(config, len(vocabulary))
    network.initialize(seed=0)
    return Checkpoint(config, vocabulary, network.tensors(), None, read_config)


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


def reference_nats(checkpoint: Checkpoint, line: str, end: str) -> float:
    """Return the nats of a line by the definition: symbol by symbol, from the state after an initial line end."""
    vocabulary = checkpoint.vocabulary
    network = CharRNN(checkpoint.model_config, len(vocabulary))
    network.load_tensors(checkpoint.tensors)
    symbols = line.encode().decode("ascii", "surrogateescape") if vocabulary.unit == "byte" else line
    state, log_probabilities, nats = (
        network.zero_state(1),
        torch.full((len(vocabulary),), -math.log(len(vocabulary))),
        0.0,
    )
    for position, symbol in enumerate([end, *symbols, end]):
        if not symbol:
            continue
        index = int(vocabulary.ids_of(symbol)[0])
        unknown = index < 0 or index == vocabulary.unknown_id
        if position:
            nats += UNKNOWN_NATS * unknown + (0 if index < 0 else -float(log_probabilities[index]))
        if index >= 0:
            with torch.no_grad():
                logits, state = network(torch.tensor([[index]]), state)
            log_probabilities = logits[0, 0].log_softmax(-1)
    return nats


def scores(checkpoint: Checkpoint, batches: list[list[LineFragment]], *, carry: bool = False) -> list[LineScore]:
    scorer = LineScorer(checkpoint, choose_scorer(checkpoint), carry=carry, per_symbol=True)
    return [line for batch in batches for line in scorer.score(batch)]


LINES = st.lists(st.text(alphabet="onetwhr éя", max_size=12), min_size=1, max_size=8)


@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=20)
@given(lines=LINES, cut=st.integers(0, 8))
def test_the_score_of_a_line_does_not_depend_on_other_lines(name: str, lines: list[str], cut: int) -> None:
    checkpoint, end = MODELS[name], END.get(name, "\n")
    fragments = [LineFragment(line.encode()) for line in lines]
    line_scores = scores(checkpoint, [fragments[:cut], fragments[cut:]])
    assert [score.number for score in line_scores] == [*range(1, len(lines) + 1)]
    assert [score.data.decode() for score in line_scores] == lines
    assert [score.nats for score in line_scores] == pytest.approx(
        [reference_nats(checkpoint, line, end) for line in lines], abs=1e-4
    )
    for score, line in zip(line_scores, lines, strict=True):
        symbols = line.encode().decode("ascii", "surrogateescape") if checkpoint.vocabulary.unit == "byte" else line
        assert score.num_predictions == len(symbols) + len(end)
        assert "".join(symbol for symbol, _ in score.surprisals) == symbols + end
        assert sum(nats for _, nats in score.surprisals) == pytest.approx(score.nats, abs=1e-6)
        symbols_of_model = set(checkpoint.vocabulary.symbols)
        assert score.unknown == sum(symbol not in symbols_of_model for symbol in symbols)


@pytest.mark.parametrize("name", ["text", "bytes"])
@settings(max_examples=20)
@given(lines=st.lists(st.text(alphabet="onetwhr é", max_size=12), min_size=2, max_size=8), closed=st.booleans())
def test_carried_scores_add_up_to_the_evaluation_of_the_text(name: str, lines: list[str], closed: bool) -> None:
    checkpoint = MODELS[name]
    text = "\n".join(lines) + "\n" * closed
    fragments = [LineFragment(line.encode()) for line in lines]
    if not closed:
        fragments[-1] = fragments[-1]._replace(closed=False)
        if not lines[-1]:
            fragments.pop()
    line_scores = scores(checkpoint, [fragments[:2], fragments[2:]], carry=True)
    size = sum(score.num_predictions for score in line_scores)
    if size < 2:
        return
    expected = mean_nats(
        choose_scorer(checkpoint),
        corpus_from_text(text, checkpoint.read_config).with_vocabulary(checkpoint.vocabulary).tokens(),
    )
    assert sum(score.nats for score in line_scores) / size == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_a_long_line_can_be_split_into_fragments(name: str) -> None:
    checkpoint = MODELS[name]
    line = "one two three é"
    (expected,) = scores(checkpoint, [[LineFragment(line.encode())]])
    for size in (1, 3, 7):
        data = [line.encode()[begin : begin + size] for begin in range(0, len(line.encode()), size)]
        fragments = [LineFragment(part, last=False) for part in data] + [LineFragment(b"")]
        (score,) = scores(checkpoint, [[fragment] for fragment in fragments])
        assert (score.num_predictions, score.unknown) == (expected.num_predictions, expected.unknown)
        assert score.nats == pytest.approx(expected.nats, abs=1e-4)
        assert score.data == data[0]
        assert "".join(symbol for symbol, _ in score.surprisals) == data[0].decode()
        assert not score.complete


def test_invalid_utf8_bytes_count_as_unknown_characters() -> None:
    checkpoint = MODELS["text"]
    good, bad, next_line = scores(
        checkpoint, [[LineFragment(b"one"), LineFragment(b"on\xffe"), LineFragment(b"one")]]
    )
    assert (bad.num_predictions, bad.unknown, bad.error, bad.data) == (5, 1, "byte 0xff is not UTF-8", b"on\xffe")
    assert bad.nats == pytest.approx(good.nats + UNKNOWN_NATS, abs=1e-4)
    assert next_line.nats == pytest.approx(good.nats, abs=1e-5)
    (cut,) = scores(checkpoint, [[LineFragment(b"on\xc3")]])
    assert (cut.num_predictions, cut.unknown, cut.error) == (4, 1, "byte 0xc3 is not UTF-8")
    (byte,) = scores(MODELS["bytes"], [[LineFragment(b"on\xffe")]])
    assert (byte.num_predictions, byte.unknown, byte.error) == (5, 0, "")


def test_the_last_line_may_end_with_a_carriage_return() -> None:
    checkpoint, text = MODELS["text"], "one\r\ntwo\r"
    line_scores = scores(checkpoint, [[LineFragment(b"one\r"), LineFragment(b"two\r", closed=False)]], carry=True)
    expected = mean_nats(
        choose_scorer(checkpoint),
        corpus_from_text(text, checkpoint.read_config).with_vocabulary(checkpoint.vocabulary).tokens(),
    )
    assert sum(score.nats for score in line_scores) / sum(
        score.num_predictions for score in line_scores
    ) == pytest.approx(expected, abs=1e-6)


def test_windows_line_endings_are_converted_as_in_training() -> None:
    one, two = scores(MODELS["text"], [[LineFragment(b"one"), LineFragment(b"one\r")]])
    assert one.nats == pytest.approx(two.nats, abs=1e-5)
    assert two.data == b"one\r"


def test_carry_is_rejected_if_lines_are_documents() -> None:
    for checkpoint, reason in (
        (MODELS["lines"], "reads each line as a separate document"),
        (model("separated", separator="\n"), "reads each line as a separate document"),
        (model("separated", separator="%\n"), "reads each line as part of one of many documents"),
    ):
        with pytest.raises(SettingError, match=reason):
            LineScorer(checkpoint, choose_scorer(checkpoint), carry=True)


def test_the_document_separator_may_be_a_line_feed() -> None:
    checkpoint = model("separated", separator="\n")
    (score,) = scores(checkpoint, [[LineFragment(b"one")]])
    assert score.nats == pytest.approx(reference_nats(checkpoint, "one", BOUNDARY), abs=1e-4)


def test_the_first_line_of_a_document_is_predicted_from_the_boundary() -> None:
    checkpoint = MODELS["files"]
    line_scores = scores(checkpoint, [[LineFragment(b"one"), LineFragment(b"two")]], carry=True)
    ids = corpus_from_text("one\ntwo\n", checkpoint.read_config).with_vocabulary(checkpoint.vocabulary).tokens()
    nats = np.array([nats for score in line_scores for _, nats in score.surprisals])
    assert len(nats) == len(ids) - 2  # all ids except the boundaries
    assert nats[0] != 0
