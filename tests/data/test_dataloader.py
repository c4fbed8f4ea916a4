from collections import Counter
from itertools import pairwise

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st

from charrnn.data.dataloader import IGNORE_INDEX, StreamLoader
from charrnn.data.token_view import TokenView

SIZES = st.integers(1, 50)


def whole(length: int) -> TokenView:
    """A text in which each id is its own place, so that a pair tells where it was read."""
    return TokenView.contiguous(np.arange(length, dtype=np.uint16), np.arange(length))


class Made(StreamLoader):
    """Streams of a text that is read as it stands, which remember how they were asked for."""

    def __init__(self, length: int, batch_size: int, seq_length: int) -> None:
        super().__init__(whole(length), batch_size, seq_length)
        self.length, self.batch_size, self.seq_length = length, batch_size, seq_length


ANY_STREAMS = st.builds(Made, length=st.integers(2, 400), batch_size=SIZES, seq_length=SIZES)


def pairs_of(streams: StreamLoader, stream: int, epoch: int = 0) -> list[tuple[int, int]]:
    """The (symbol, next symbol) pairs that count of one stream, in the order in which they are read."""
    pairs = []
    for index in range(streams.steps_per_epoch):
        inputs, targets = streams.get_batch(epoch * streams.steps_per_epoch + index)
        column = zip(inputs[:, stream].tolist(), targets[:, stream].tolist(), strict=True)
        pairs += [(symbol, following) for symbol, following in column if following != IGNORE_INDEX]
    return pairs


@given(ANY_STREAMS)
def test_an_epoch_reads_every_pair_of_the_text_exactly_once(streams: Made) -> None:
    read = Counter(pair for stream in range(streams.batch_size) for pair in pairs_of(streams, stream))
    assert read == Counter((place, place + 1) for place in range(streams.length - 1))
    assert streams.num_targets == streams.length - 1


@given(ANY_STREAMS)
def test_a_stream_goes_on_in_each_chunk_where_the_last_one_ended(streams: Made) -> None:
    for stream in range(streams.batch_size):
        places = [symbol for symbol, _ in pairs_of(streams, stream)]
        assert all(later == earlier + 1 for earlier, later in pairwise(places))


@given(ANY_STREAMS)
def test_streams_follow_one_another_in_the_text_and_none_is_longer_than_the_first(streams: Made) -> None:
    runs = [pairs_of(streams, stream) for stream in range(streams.batch_size)]
    assert [pair for run in runs for pair in run] == [(place, place + 1) for place in range(streams.num_targets)]
    assert max(map(len, runs)) == len(runs[0]) == streams.stream_length


@given(ANY_STREAMS)
def test_every_chunk_is_time_major_and_has_something_to_predict(streams: Made) -> None:
    for index in range(streams.steps_per_epoch):
        inputs, targets = streams.get_batch(index)
        assert inputs.shape == targets.shape == (streams.seq_length, streams.batch_size)
        assert inputs.dtype == targets.dtype == np.int64
        assert (targets != IGNORE_INDEX).any()


@given(ANY_STREAMS)
def test_padding_comes_only_after_the_end_of_a_stream(streams: Made) -> None:
    targets = np.concatenate(
        [streams.get_batch(index)[1] for index in range(streams.steps_per_epoch)]
    )  # (chunks * T, B)
    padding = targets == IGNORE_INDEX
    assert (np.sort(padding, axis=0) == padding).all()


@given(ANY_STREAMS)
def test_padding_reads_symbols_that_the_network_knows(streams: Made) -> None:
    for index in range(streams.steps_per_epoch):
        inputs, _ = streams.get_batch(index)
        assert (inputs >= 0).all()
        assert (inputs < streams.length).all()


@given(ANY_STREAMS, st.data())
def test_a_chunk_is_the_same_whenever_it_is_read(streams: Made, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, streams.steps_per_epoch - 1))
    once, again = streams.get_batch(index), streams.get_batch(index)
    assert np.array_equal(once, again)


def test_two_streams_of_a_short_text_look_as_drawn() -> None:
    ids = np.array([7, 8, 9, 7, 8, 9], dtype=np.uint8)
    streams = StreamLoader(TokenView.contiguous(ids, np.arange(10)), batch_size=2, seq_length=2)
    first, second = streams.get_batch(0), streams.get_batch(1)
    assert first[0].tolist() == [[7, 7], [8, 8]]  # inputs (T, B)
    assert first[1].tolist() == [[8, 8], [9, 9]]
    assert second[1].tolist() == [[7, IGNORE_INDEX], [IGNORE_INDEX, IGNORE_INDEX]]


def documents(lengths: list[int]) -> tuple[TokenView, list[list[int]]]:
    """A text of documents, each with a boundary (0) before it, and them; every other id is its own place."""
    starts = np.concatenate([[0], np.cumsum(np.array(lengths) + 1)])
    ids = np.arange(starts[-1] + 1)
    ids[starts] = 0
    each = [ids[start + 1 : end].tolist() for start, end in pairwise(starts.tolist())]
    text = TokenView(ids, np.arange(len(ids)), starts[:-1], np.diff(starts), closing_index=int(starts[-1]))
    return text, each


def read_documents(streams: StreamLoader, batch_size: int, epoch: int) -> list[list[int]]:
    """The documents in the order in which an epoch reads them, those that a stream's end cuts put together again."""
    ids = [following for stream in range(batch_size) for _, following in pairs_of(streams, stream, epoch)]
    read: list[list[int]] = [[]]
    for one in ids:
        if one == 0:
            read.append([])
        else:
            read[-1].append(one)
    assert read.pop() == []
    return read


@given(st.lists(st.integers(1, 9), min_size=1, max_size=30), SIZES, SIZES, st.integers(0, 3), st.integers(0, 3))
def test_every_epoch_reads_every_document_once_and_whole(
    lengths: list[int], batch_size: int, seq_length: int, seed: int, epoch: int
) -> None:
    text, each = documents(lengths)
    streams = StreamLoader(text, batch_size, seq_length, seed)
    assert sorted(read_documents(streams, batch_size, epoch)) == sorted(each)


@given(st.integers(0, 5), st.integers(0, 5))
def test_documents_come_in_another_order_in_each_epoch_and_for_each_seed(one: int, other: int) -> None:
    assume(one != other)
    text, _ = documents([1] * 30)

    def order(seed: int, epoch: int) -> list[list[int]]:
        return read_documents(StreamLoader(text, 2, 8, seed), 2, epoch)

    assert order(one, 3) != order(other, 3)
    assert order(3, one) != order(3, other)
    assert order(one, other) == order(one, other)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=30), SIZES, SIZES)
def test_the_documents_are_the_same_whatever_the_size_of_a_chunk(lengths: list[int], one: int, other: int) -> None:
    text, _ = documents(lengths)
    assert read_documents(StreamLoader(text, 3, one), 3, 1) == read_documents(StreamLoader(text, 3, other), 3, 1)
