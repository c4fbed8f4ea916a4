from collections import Counter
from itertools import pairwise

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st

from charrnn.data.dataloader import IGNORE_INDEX, StreamLoader
from charrnn.data.token_view import TokenView

SIZES = st.integers(1, 50)


def numbered_text(length: int) -> TokenView:
    """Return a text in which each id equals the position, so that pairs show where they were read."""
    return TokenView.contiguous(np.arange(length, dtype=np.uint16), np.arange(length))


class NumberedLoader(StreamLoader):
    """A loader of a numbered text that stores the arguments."""

    def __init__(self, length: int, batch_size: int, seq_length: int) -> None:
        super().__init__(numbered_text(length), batch_size, seq_length)
        self.length, self.batch_size, self.seq_length = length, batch_size, seq_length


ANY_LOADER = st.builds(NumberedLoader, length=st.integers(2, 400), batch_size=SIZES, seq_length=SIZES)


def pairs_of(loader: StreamLoader, stream: int, epoch: int = 0) -> list[tuple[int, int]]:
    """Return the (symbol, next symbol) pairs of one stream, in the order of reading and without padding."""
    pairs = []
    for index in range(loader.steps_per_epoch):
        inputs, targets = loader.get_batch(epoch * loader.steps_per_epoch + index)
        column = zip(inputs[:, stream].tolist(), targets[:, stream].tolist(), strict=True)
        pairs += [(symbol, next_symbol) for symbol, next_symbol in column if next_symbol != IGNORE_INDEX]
    return pairs


@given(ANY_LOADER)
def test_an_epoch_reads_every_pair_exactly_once(loader: NumberedLoader) -> None:
    read = Counter(pair for stream in range(loader.batch_size) for pair in pairs_of(loader, stream))
    assert read == Counter((index, index + 1) for index in range(loader.length - 1))
    assert loader.num_targets == loader.length - 1


@given(ANY_LOADER)
def test_a_stream_continues_across_chunks(loader: NumberedLoader) -> None:
    for stream in range(loader.batch_size):
        indices = [symbol for symbol, _ in pairs_of(loader, stream)]
        assert all(later == earlier + 1 for earlier, later in pairwise(indices))


@given(ANY_LOADER)
def test_streams_are_consecutive_and_the_first_is_longest(loader: NumberedLoader) -> None:
    runs = [pairs_of(loader, stream) for stream in range(loader.batch_size)]
    assert [pair for run in runs for pair in run] == [(index, index + 1) for index in range(loader.num_targets)]
    assert max(map(len, runs)) == len(runs[0]) == loader.stream_length


@given(ANY_LOADER)
def test_every_chunk_is_time_major_and_has_targets(loader: NumberedLoader) -> None:
    for index in range(loader.steps_per_epoch):
        inputs, targets = loader.get_batch(index)
        assert inputs.shape == targets.shape == (loader.seq_length, loader.batch_size)
        assert inputs.dtype == targets.dtype == np.int64
        assert (targets != IGNORE_INDEX).any()


@given(ANY_LOADER)
def test_padding_occurs_only_at_the_end_of_a_stream(loader: NumberedLoader) -> None:
    targets = np.concatenate(
        [loader.get_batch(index)[1] for index in range(loader.steps_per_epoch)]
    )  # (chunks * T, B)
    padding = targets == IGNORE_INDEX
    assert (np.sort(padding, axis=0) == padding).all()


@given(ANY_LOADER)
def test_padding_inputs_are_valid_ids(loader: NumberedLoader) -> None:
    for index in range(loader.steps_per_epoch):
        inputs, _ = loader.get_batch(index)
        assert (inputs >= 0).all()
        assert (inputs < loader.length).all()


@given(ANY_LOADER, st.data())
def test_reading_a_chunk_again_gives_the_same_chunk(loader: NumberedLoader, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, loader.steps_per_epoch - 1))
    once, again = loader.get_batch(index), loader.get_batch(index)
    assert np.array_equal(once, again)


def test_two_streams_of_a_short_text() -> None:
    ids = np.array([7, 8, 9, 7, 8, 9], dtype=np.uint8)
    loader = StreamLoader(TokenView.contiguous(ids, np.arange(10)), batch_size=2, seq_length=2)
    first, second = loader.get_batch(0), loader.get_batch(1)
    assert first[0].tolist() == [[7, 7], [8, 8]]  # inputs (T, B)
    assert first[1].tolist() == [[8, 8], [9, 9]]
    assert second[1].tolist() == [[7, IGNORE_INDEX], [IGNORE_INDEX, IGNORE_INDEX]]


def documents(lengths: list[int]) -> tuple[TokenView, list[list[int]]]:
    """Return a text and its documents. Id 0 is the boundary before each document; every other id is the position."""
    starts = np.concatenate([[0], np.cumsum(np.array(lengths) + 1)])
    ids = np.arange(starts[-1] + 1)
    ids[starts] = 0
    expected = [ids[start + 1 : end].tolist() for start, end in pairwise(starts.tolist())]
    text = TokenView(ids, np.arange(len(ids)), starts[:-1], np.diff(starts), closing_index=int(starts[-1]))
    return text, expected


def read_documents(loader: StreamLoader, batch_size: int, epoch: int) -> list[list[int]]:
    """Return the documents in the order of an epoch. Documents cut at the end of a stream are joined."""
    ids = [next_symbol for stream in range(batch_size) for _, next_symbol in pairs_of(loader, stream, epoch)]
    read: list[list[int]] = [[]]
    for index in ids:
        if index == 0:
            read.append([])
        else:
            read[-1].append(index)
    assert read.pop() == []
    return read


@given(st.lists(st.integers(1, 9), min_size=1, max_size=30), SIZES, SIZES, st.integers(0, 3), st.integers(0, 3))
def test_every_epoch_reads_every_document_once(
    lengths: list[int], batch_size: int, seq_length: int, seed: int, epoch: int
) -> None:
    text, expected = documents(lengths)
    loader = StreamLoader(text, batch_size, seq_length, seed)
    assert sorted(read_documents(loader, batch_size, epoch)) == sorted(expected)


@given(st.integers(0, 5), st.integers(0, 5))
def test_the_order_of_documents_depends_on_epoch_and_seed(one: int, other: int) -> None:
    assume(one != other)
    text, _ = documents([1] * 30)

    def order(seed: int, epoch: int) -> list[list[int]]:
        return read_documents(StreamLoader(text, 2, 8, seed), 2, epoch)

    assert order(one, 3) != order(other, 3)
    assert order(3, one) != order(3, other)
    assert order(one, other) == order(one, other)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=30), SIZES, SIZES)
def test_the_order_of_documents_does_not_depend_on_the_chunk_size(lengths: list[int], one: int, other: int) -> None:
    text, _ = documents(lengths)
    assert read_documents(StreamLoader(text, 3, one), 3, 1) == read_documents(StreamLoader(text, 3, other), 3, 1)
