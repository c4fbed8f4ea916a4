from collections import Counter
from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from charrnn.text.streams import IGNORED, Streams

ANY_STREAMS = st.builds(
    lambda length, batch_size, seq_length: Streams(np.arange(length, dtype=np.uint16), batch_size, seq_length),
    length=st.integers(2, 400),
    batch_size=st.integers(1, 50),
    seq_length=st.integers(1, 50),
)  # each id is its own place in the text, so that a pair tells where it was read


def pairs_of(streams: Streams, stream: int) -> list[tuple[int, int]]:
    """The (character, next character) pairs that count of one stream, in the order in which they are read."""
    pairs = []
    for index in range(streams.chunks):
        inputs, targets = streams.chunk(index)
        column = zip(inputs[:, stream].tolist(), targets[:, stream].tolist(), strict=True)
        pairs += [(character, following) for character, following in column if following != IGNORED]
    return pairs


@given(ANY_STREAMS)
def test_an_epoch_reads_every_pair_of_the_text_exactly_once(streams: Streams) -> None:
    read = Counter(pair for stream in range(streams.batch_size) for pair in pairs_of(streams, stream))
    assert read == Counter((place, place + 1) for place in range(len(streams.ids) - 1))
    assert streams.pairs == len(streams.ids) - 1


@given(ANY_STREAMS)
def test_a_stream_goes_on_in_each_chunk_where_the_last_one_ended(streams: Streams) -> None:
    for stream in range(streams.batch_size):
        places = [character for character, _ in pairs_of(streams, stream)]
        assert all(later == earlier + 1 for earlier, later in pairwise(places))


@given(ANY_STREAMS)
def test_streams_follow_one_another_in_the_text_and_none_is_longer_than_the_first(streams: Streams) -> None:
    runs = [pairs_of(streams, stream) for stream in range(streams.batch_size)]
    assert [pair for run in runs for pair in run] == [(place, place + 1) for place in range(streams.pairs)]
    assert max(map(len, runs)) == len(runs[0]) == streams.stream_length


@given(ANY_STREAMS)
def test_every_chunk_is_time_major_and_has_something_to_predict(streams: Streams) -> None:
    for index in range(streams.chunks):
        inputs, targets = streams.chunk(index)
        assert inputs.shape == targets.shape == (streams.seq_length, streams.batch_size)
        assert inputs.dtype == targets.dtype == np.int64
        assert (targets != IGNORED).any()


@given(ANY_STREAMS)
def test_padding_comes_only_after_the_end_of_a_stream(streams: Streams) -> None:
    targets = np.concatenate([streams.chunk(index)[1] for index in range(streams.chunks)])  # (chunks * T, B)
    padding = targets == IGNORED
    assert (np.sort(padding, axis=0) == padding).all()


@given(ANY_STREAMS)
def test_padding_reads_characters_that_the_network_knows(streams: Streams) -> None:
    for index in range(streams.chunks):
        inputs, _ = streams.chunk(index)
        assert (inputs >= 0).all()
        assert (inputs < len(streams.ids)).all()


@given(ANY_STREAMS, st.data())
def test_a_chunk_is_the_same_whenever_it_is_read(streams: Streams, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, streams.chunks - 1))
    once, again = streams.chunk(index), streams.chunk(index)
    assert np.array_equal(once, again)


def test_two_streams_of_a_short_text_look_as_drawn() -> None:
    streams = Streams(np.array([7, 8, 9, 7, 8, 9], dtype=np.uint8), batch_size=2, seq_length=2)
    first, second = streams.chunk(0), streams.chunk(1)
    assert first[0].tolist() == [[7, 7], [8, 8]]  # inputs (T, B)
    assert first[1].tolist() == [[8, 8], [9, 9]]
    assert second[1].tolist() == [[7, IGNORED], [IGNORED, IGNORED]]
