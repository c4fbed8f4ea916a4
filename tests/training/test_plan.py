"""What the tool does when told nothing, for texts from five characters to a hundred megabytes."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from charrnn.config import ModelConfig, TrainConfig
from charrnn.config.overrides import Overrides
from charrnn.errors import SettingError
from charrnn.training.plan import MAX_SMALL_STEPS, MAX_USEFUL_EPOCHS, Plan, StepTiming, make_plan


def clock(model: ModelConfig, train: TrainConfig, distinct: int) -> StepTiming:
    """A machine of 100 Gflop/s."""
    return StepTiming(
        6 * model.num_parameters(distinct) * train.batch_size * train.seq_length / 1e11, "fp32", "torch", 1
    )


def plan(characters: int, distinct: int = 65, **settings: Any) -> Plan:
    return make_plan(characters, distinct, Overrides(**settings), clock)


@given(characters=st.integers(2, 200_000_000), vocab_size=st.integers(1, 8000))
def test_every_text_gets_a_plan_that_it_can_fill(characters: int, distinct: int) -> None:
    made = plan(characters, distinct)
    train = made.train_config
    pairs = characters - made.validation_characters - 1
    assert 1 <= train.batch_size <= pairs
    assert train.seq_length <= -(-pairs // train.batch_size)
    assert made.steps >= 1
    assert made.validation_characters < characters


@given(
    characters=st.integers(2, 10_000_000),
    settings=st.fixed_dictionaries(
        {},
        optional={
            "hidden": st.integers(1, 600),
            "layers": st.integers(1, 4),
            "embedding": st.integers(0, 64),
            "dropout": st.floats(0, 0.9),
            "learning_rate": st.floats(1e-5, 1),
            "cell": st.sampled_from(["lstm", "gru", "rnn"]),
            "clip": st.floats(0, 10),
            "seed": st.integers(0, 99),
            "patience": st.integers(0, 9),
        },
    ),
)
def test_every_option_is_obeyed(characters: int, settings: dict[str, Any]) -> None:
    made = plan(characters, **settings)
    for name, value in settings.items():
        assert getattr(made.model_config if hasattr(made.model_config, name) else made.train_config, name) == value


def test_cells_with_fewer_gates_learn_more_slowly() -> None:
    rates = {
        cell: plan(1_000_000, cell=cell, hidden=256).train_config.learning_rate for cell in ("lstm", "gru", "rnn")
    }
    assert rates["gru"] == rates["lstm"] / 2
    assert rates["rnn"] == rates["lstm"] / 4


@pytest.mark.parametrize("name", ["hidden", "dropout", "learning_rate", "grad_clip"])
def test_an_option_leaves_the_decisions_before_it_alone(name: str) -> None:
    told, untold = plan(1_000_000, **{name: 0.25 if name != "hidden" else 96}), plan(1_000_000)
    assert (told.train_config.batch_size, told.train_config.seq_length) == (
        untold.train_config.batch_size,
        untold.train_config.seq_length,
    )
    assert told.validation_characters == untold.validation_characters


def test_a_megabyte_trains_about_five_minutes() -> None:
    assert 200 < plan(1_115_394).seconds < 300


def test_a_small_text_is_done_long_before() -> None:
    assert plan(2400, 5).seconds < 20


def test_minutes_are_kept_as_minutes() -> None:
    made = plan(1_115_394, minutes=2.0)
    assert made.train_config.minutes == 2.0
    assert made.train_config.steps is None
    assert made.seconds == pytest.approx(120, rel=0.05)


def test_no_more_minutes_are_spent_than_a_text_is_worth_to_a_network_that_was_chosen_for_it() -> None:
    short, long = plan(900_000, minutes=5), plan(900_000, minutes=60)
    assert long.seconds < 60 * 60 / 2
    assert long.steps / long.steps_per_epoch == pytest.approx(MAX_USEFUL_EPOCHS)
    assert long.train_config.steps == long.steps
    assert short.steps <= long.steps
    small = plan(230_000, minutes=60)
    assert (small.steps, small.steps / small.steps_per_epoch) == (800, pytest.approx(MAX_SMALL_STEPS / 102, abs=0.1))
    assert any("ends when the text was read 5 times" in note for note in long.notes)


def test_whoever_chooses_the_network_gets_all_the_minutes() -> None:
    made = plan(300_000, minutes=60, hidden=128)
    assert made.seconds == pytest.approx(3600, rel=0.01)
    assert made.train_config.steps is None


@pytest.mark.parametrize(
    ("budget", "step", "seconds"),
    [({"minutes": 1, "steps": 50}, 5, 6), ({"minutes": 1, "steps": 50}, 4, 30), ({"minutes": 2, "epochs": 2}, 20, 9)],
)
def test_of_two_budgets_what_is_spent_first_counts(budget: dict[str, float], step: int, seconds: float) -> None:
    settings = {"batch_size": 10, "seq_length": 90, "hidden": 8, "validation": 0.1}
    made = plan(10_000, **settings, **budget)
    alone = [plan(10_000, **settings, **{name: share}) for name, share in budget.items()]
    assert made.budget_spent(step, seconds) == max(one.budget_spent(step, seconds) for one in alone) > 0
    assert made.steps == min(one.steps for one in alone)


def test_epochs_become_steps() -> None:
    made = plan(100_000, epochs=3.0, batch_size=10, seq_length=100, validation=0.1)
    assert made.steps == 3 * 90


def test_without_a_budget_the_steps_are_decided_once() -> None:
    made = plan(1_115_394)
    assert made.train_config.steps == made.steps


def test_a_larger_budget_buys_a_larger_network() -> None:
    sizes = [plan(1_115_394, minutes=minutes).model_config.hidden for minutes in (0.1, 1, 5, 60)]
    assert sizes == sorted(set(sizes))


def test_a_text_too_small_to_measure_on_gets_a_small_network() -> None:
    assert plan(1900).model_config.hidden < plan(2100).model_config.hidden


def test_what_would_be_read_again_and_again_gets_a_larger_network_instead() -> None:
    short, long = (plan(characters, minutes=5).model_config.hidden for characters in (300_000, 3_000_000))
    assert short > long


def test_the_more_often_a_text_is_read_the_more_often_it_is_measured() -> None:
    counts = [plan(20_000, hidden=64, epochs=epochs).train_config.evaluations for epochs in (10.0, 50.0, 1000.0)]
    assert counts[0] <= 25
    assert counts[1:] == [50, 100]


def test_a_large_vocabulary_gets_an_embedding() -> None:
    assert plan(600_000, 6257).model_config.embedding > 0
    assert plan(600_000, 65).model_config.embedding == 0


def test_a_text_read_often_gets_more_dropout() -> None:
    shares = [
        plan(1_000_000, hidden=128, epochs=epochs).model_config.dropout for epochs in (1.0, 4.0, 7.0, 16.0, 60.0)
    ]
    assert shares == sorted(set(shares))


def test_a_network_that_is_large_for_its_text_gets_more_dropout() -> None:
    small, large = (plan(200_000, hidden=hidden, epochs=8.0).model_config.dropout for hidden in (64, 512))
    assert 0 < small < large


def test_a_small_text_is_read_in_a_few_long_streams() -> None:
    made = plan(10_000)
    assert made.steps_per_epoch >= 16
    assert plan(1_000_000).train_config.batch_size == 4 * made.train_config.batch_size


def test_a_validation_part_too_small_to_mean_anything_is_dropped_with_a_note() -> None:
    made = plan(1000)
    assert made.validation_characters == 0
    assert "too few for a validation text" in made.notes[0]


def test_no_validation_is_no_news_when_it_was_asked_for() -> None:
    assert plan(1000, validation=0.0).notes == ()


def test_a_batch_that_the_text_cannot_fill_is_cut_with_a_note() -> None:
    made = plan(50, batch_size=64, seq_length=64, validation=0.0)
    assert (made.train_config.batch_size, made.train_config.seq_length) == (49, 1)
    assert "reduced to batch size 49, sequence length 1:" in made.notes[0]


def test_a_validation_text_large_enough_is_the_tenth_at_the_end() -> None:
    assert plan(1_115_394).validation_characters == 111_540


def test_no_more_of_a_large_text_is_measured_than_takes_a_moment() -> None:
    made = plan(100_000_000)
    assert made.validation_characters == 500_000
    assert plan(100_000_000, validation=made.train_config.validation).validation_characters == 500_000
    assert plan(100_000_000, validation=0.1).validation_characters == 10_000_000


def test_the_pace_is_taken_with_dropout_because_that_takes_its_time() -> None:
    asked: set[float] = set()

    def watching(model: ModelConfig, train: TrainConfig, distinct: int) -> StepTiming:
        asked.add(model.dropout)
        return clock(model, train, distinct)

    make_plan(1_000_000, 65, Overrides(), watching)
    assert min(asked) > 0
    asked.clear()
    make_plan(1_000_000, 65, Overrides(dropout=0.0), watching)
    assert asked == {0}


def test_a_network_that_turns_out_faster_than_expected_may_be_larger() -> None:
    asked: list[int] = []

    def one_speed_for_all(model: ModelConfig, train: TrainConfig, distinct: int) -> StepTiming:
        asked.append(model.hidden)
        return StepTiming(0.03, "fp32", "torch", 1)

    made = make_plan(1_115_394, 65, Overrides(), one_speed_for_all)
    assert asked[0] < asked[1] < asked[2] == made.model_config.hidden
    assert made.seconds <= 280


def test_the_summary_is_one_line_with_the_expected_duration() -> None:
    summary = plan(1_115_394).summary
    assert "\n" not in summary
    assert summary.endswith("4 min")


def test_the_expected_duration_is_that_of_all_epochs() -> None:
    long = plan(1_115_394, epochs=4.0)
    assert long.epoch_seconds == pytest.approx(long.seconds / 4)


def test_a_machine_without_bf16_is_explained() -> None:
    def slow(model: ModelConfig, train: TrainConfig, distinct: int) -> StepTiming:
        return StepTiming(0.1, "fp32", "torch", 1, "no bf16 here")

    assert make_plan(10_000, 65, Overrides(), slow).notes == ("no bf16 here",)


def test_a_wrong_value_is_refused() -> None:
    with pytest.raises(SettingError, match="hidden"):
        plan(1000, hidden=0)


def test_little_is_measured_of_a_text_of_which_little_is_read() -> None:
    made = plan(50_000_000, 5000, minutes=1)
    read = made.steps * made.train_config.batch_size * made.train_config.seq_length
    assert made.validation_characters <= read / 10
    again = plan(50_000_000, 5000, minutes=1, validation=made.train_config.validation)
    assert again.validation_characters == made.validation_characters


def test_budgets_in_steps_leave_the_validation_text_as_it_is() -> None:
    made = [plan(1_115_394, steps=5), plan(1_115_394, epochs=0.1)]
    assert [one.validation_characters for one in made] == [111_540, 111_540]


def test_characters_that_are_rare_do_not_make_a_network_small() -> None:
    few, many = (plan(50_000_000, distinct, minutes=5).model_config.hidden for distinct in (200, 5000))
    assert 128 <= many <= few
