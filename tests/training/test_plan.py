"""The plan for texts from two characters to 200 MB."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from charrnn.config import ModelConfig, TrainConfig
from charrnn.config.overrides import Overrides
from charrnn.errors import CharrnnError, SettingError
from charrnn.training.memory import training_bytes
from charrnn.training.plan import MAX_SMALL_STEPS, MAX_USEFUL_EPOCHS, Plan, StepTiming, make_plan


def estimate_step(model: ModelConfig, train: TrainConfig, vocab_size: int) -> StepTiming:
    """Return the step time of a machine with 100 GFLOP/s."""
    return StepTiming(
        6 * model.num_parameters(vocab_size) * train.batch_size * train.seq_length / 1e11, "fp32", "torch", 1
    )


def plan(characters: int, vocab_size: int = 65, **settings: Any) -> Plan:
    return make_plan(characters, vocab_size, Overrides(**settings), estimate_step)


@given(characters=st.integers(2, 200_000_000), vocab_size=st.integers(1, 8000))
def test_every_text_gets_a_valid_plan(characters: int, vocab_size: int) -> None:
    run_plan = plan(characters, vocab_size)
    train = run_plan.train_config
    pairs = characters - run_plan.validation_characters - 1
    assert 1 <= train.batch_size <= pairs
    assert train.seq_length <= -(-pairs // train.batch_size)
    assert run_plan.steps >= 1
    assert run_plan.validation_characters < characters


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
            "grad_clip": st.floats(0, 10),
            "seed": st.integers(0, 99),
            "patience": st.integers(0, 9),
        },
    ),
)
def test_every_option_overrides_the_plan(characters: int, settings: dict[str, Any]) -> None:
    run_plan = plan(characters, **settings)
    for name, value in settings.items():
        assert (
            getattr(run_plan.model_config if hasattr(run_plan.model_config, name) else run_plan.train_config, name)
            == value
        )


def test_cells_with_fewer_gates_get_lower_learning_rates() -> None:
    rates = {
        cell: plan(1_000_000, cell=cell, hidden=256).train_config.learning_rate for cell in ("lstm", "gru", "rnn")
    }
    assert rates["gru"] == rates["lstm"] / 2
    assert rates["rnn"] == rates["lstm"] / 4


@pytest.mark.parametrize("name", ["hidden", "dropout", "learning_rate", "grad_clip"])
def test_an_option_does_not_change_earlier_decisions(name: str) -> None:
    with_option, without_option = plan(1_000_000, **{name: 0.25 if name != "hidden" else 96}), plan(1_000_000)
    assert (with_option.train_config.batch_size, with_option.train_config.seq_length) == (
        without_option.train_config.batch_size,
        without_option.train_config.seq_length,
    )
    assert with_option.validation_characters == without_option.validation_characters


def test_a_megabyte_trains_about_five_minutes() -> None:
    assert 200 < plan(1_115_394).seconds < 300


def test_a_small_text_trains_for_seconds() -> None:
    assert plan(2400, 5).seconds < 20


def test_a_budget_in_minutes_stays_in_minutes() -> None:
    run_plan = plan(1_115_394, minutes=2.0)
    assert run_plan.train_config.minutes == 2.0
    assert run_plan.train_config.steps is None
    assert run_plan.seconds == pytest.approx(120, rel=0.05)


def test_minutes_are_limited_for_a_planned_network() -> None:
    short, long = plan(900_000, minutes=5), plan(900_000, minutes=60)
    assert long.seconds < 60 * 60 / 2
    assert long.steps / long.steps_per_epoch == pytest.approx(MAX_USEFUL_EPOCHS)
    assert long.train_config.steps == long.steps
    assert short.steps <= long.steps
    small = plan(230_000, minutes=60)
    assert (small.steps, small.steps / small.steps_per_epoch) == (800, pytest.approx(MAX_SMALL_STEPS / 102, abs=0.1))
    assert any("ends once the text has been read 5 times" in note for note in long.notes)


def test_minutes_are_not_limited_for_a_given_network() -> None:
    run_plan = plan(300_000, minutes=60, hidden=128)
    assert run_plan.seconds == pytest.approx(3600, rel=0.01)
    assert run_plan.train_config.steps is None


@pytest.mark.parametrize(
    ("budget", "step", "seconds"),
    [({"minutes": 1, "steps": 50}, 5, 6), ({"minutes": 1, "steps": 50}, 4, 30), ({"minutes": 2, "epochs": 2}, 20, 9)],
)
def test_the_first_of_two_budgets_to_be_spent_counts(budget: dict[str, float], step: int, seconds: float) -> None:
    settings = {"batch_size": 10, "seq_length": 90, "hidden": 8, "validation": 0.1}
    run_plan = plan(10_000, **settings, **budget)
    alone = [plan(10_000, **settings, **{name: share}) for name, share in budget.items()]
    assert run_plan.budget_spent(step, seconds) == max(one.budget_spent(step, seconds) for one in alone) > 0
    assert run_plan.steps == min(one.steps for one in alone)


def test_epochs_become_steps() -> None:
    run_plan = plan(100_000, epochs=3.0, batch_size=10, seq_length=100, validation=0.1)
    assert run_plan.steps == 3 * 90


def test_without_a_budget_the_plan_sets_the_steps() -> None:
    run_plan = plan(1_115_394)
    assert run_plan.train_config.steps == run_plan.steps


def test_a_larger_budget_gets_a_larger_network() -> None:
    sizes = [plan(1_115_394, minutes=minutes).model_config.hidden for minutes in (0.1, 1, 5, 60)]
    assert sizes == sorted(set(sizes))


def test_a_text_without_validation_text_gets_a_small_network() -> None:
    assert plan(1900).model_config.hidden < plan(2100).model_config.hidden


def test_a_shorter_text_gets_a_larger_network_for_the_same_budget() -> None:
    short, long = (plan(characters, minutes=5).model_config.hidden for characters in (300_000, 3_000_000))
    assert short > long


def test_more_epochs_get_more_evaluations() -> None:
    counts = [plan(20_000, hidden=64, epochs=epochs).train_config.evaluations for epochs in (10.0, 50.0, 1000.0)]
    assert counts[0] <= 25
    assert counts[1:] == [50, 100]


def test_a_large_vocabulary_gets_an_embedding() -> None:
    assert plan(600_000, 6257).model_config.embedding > 0
    assert plan(600_000, 65).model_config.embedding == 0


def test_more_epochs_get_more_dropout() -> None:
    shares = [
        plan(1_000_000, hidden=128, epochs=epochs).model_config.dropout for epochs in (1.0, 4.0, 7.0, 16.0, 60.0)
    ]
    assert shares == sorted(set(shares))


def test_a_larger_network_gets_more_dropout() -> None:
    small, large = (plan(200_000, hidden=hidden, epochs=8.0).model_config.dropout for hidden in (64, 512))
    assert 0 < small < large


def test_a_small_text_gets_fewer_streams() -> None:
    run_plan = plan(10_000)
    assert run_plan.steps_per_epoch >= 16
    assert plan(1_000_000).train_config.batch_size == 4 * run_plan.train_config.batch_size


def test_a_validation_text_that_is_too_small_is_dropped_with_a_note() -> None:
    run_plan = plan(1000)
    assert run_plan.validation_characters == 0
    assert "too few for a validation text" in run_plan.notes[0]


def test_requesting_no_validation_text_causes_no_note() -> None:
    assert plan(1000, validation=0.0).notes == ()


def test_a_batch_larger_than_the_text_is_reduced_with_a_note() -> None:
    run_plan = plan(50, batch_size=64, seq_length=64, validation=0.0)
    assert (run_plan.train_config.batch_size, run_plan.train_config.seq_length) == (49, 1)
    assert "reduced to --batch-size 49 --seq-length 1," in run_plan.notes[0]


def test_the_validation_text_is_a_tenth_of_the_text() -> None:
    assert plan(1_115_394).validation_characters == 111_540


def test_the_validation_text_of_a_large_text_is_limited() -> None:
    run_plan = plan(100_000_000)
    assert run_plan.validation_characters == 500_000
    assert plan(100_000_000, validation=run_plan.train_config.validation).validation_characters == 500_000
    assert plan(100_000_000, validation=0.1).validation_characters == 10_000_000


def test_step_times_are_measured_with_dropout() -> None:
    tried: set[float] = set()

    def recording(model: ModelConfig, train: TrainConfig, vocab_size: int) -> StepTiming:
        tried.add(model.dropout)
        return estimate_step(model, train, vocab_size)

    make_plan(1_000_000, 65, Overrides(), recording)
    assert min(tried) > 0
    tried.clear()
    make_plan(1_000_000, 65, Overrides(dropout=0.0), recording)
    assert tried == {0}


def test_a_network_faster_than_estimated_is_enlarged() -> None:
    tried: list[int] = []

    def constant_speed(model: ModelConfig, train: TrainConfig, vocab_size: int) -> StepTiming:
        tried.append(model.hidden)
        return StepTiming(0.03, "fp32", "torch", 1)

    run_plan = make_plan(1_115_394, 65, Overrides(), constant_speed)
    assert tried[0] < tried[1] < tried[2] == run_plan.model_config.hidden
    assert run_plan.seconds <= 280


def test_the_summary_is_one_line_with_the_duration() -> None:
    summary = plan(1_115_394).summary
    assert "\n" not in summary
    assert summary.endswith("4 min")


def test_the_duration_covers_all_epochs() -> None:
    long = plan(1_115_394, epochs=4.0)
    assert long.epoch_seconds == pytest.approx(long.seconds / 4)


def test_the_plan_includes_notes_of_autotuning() -> None:
    def slow(model: ModelConfig, train: TrainConfig, vocab_size: int) -> StepTiming:
        return StepTiming(0.1, "fp32", "torch", 1, "no bf16 here")

    assert make_plan(10_000, 65, Overrides(), slow).notes == ("no bf16 here",)


def test_an_invalid_value_is_rejected() -> None:
    with pytest.raises(SettingError, match="hidden"):
        plan(1000, hidden=0)


def test_the_validation_text_is_small_if_little_text_is_read() -> None:
    run_plan = plan(50_000_000, 5000, minutes=1)
    read = run_plan.steps * run_plan.train_config.batch_size * run_plan.train_config.seq_length
    assert run_plan.validation_characters <= read / 10
    repeated = plan(50_000_000, 5000, minutes=1, validation=run_plan.train_config.validation)
    assert repeated.validation_characters == run_plan.validation_characters


def test_budgets_in_steps_do_not_change_the_validation_text() -> None:
    run_plan = [plan(1_115_394, steps=5), plan(1_115_394, epochs=0.1)]
    assert [one.validation_characters for one in run_plan] == [111_540, 111_540]


def test_rare_characters_do_not_shrink_the_network() -> None:
    few, many = (plan(50_000_000, vocab_size, minutes=5).model_config.hidden for vocab_size in (200, 5000))
    assert 128 <= many <= few


GB = 10**9


def plan_with(memory: float, **settings: Any) -> Plan:
    """Return the plan for a million characters on a machine with this much memory."""
    return make_plan(1_000_000, 65, Overrides(threads=2, **settings), estimate_step, memory)


@pytest.mark.parametrize(
    ("settings", "subject"),
    [
        ({"hidden": 2**63 - 1}, "hidden"),
        ({"layers": 10**9}, "layers"),
        ({"embedding": 10**12}, "embedding"),
        ({"batch_size": 10**6, "hidden": 300}, "batch_size"),
        ({"seq_length": 10**6, "batch_size": 1, "hidden": 2000}, "seq_length"),
        ({"hidden": 10**6, "layers": 3, "embedding": 5}, "hidden"),
        ({"hidden": 300, "layers": 10**6}, "layers"),
    ],
)
def test_a_size_that_does_not_fit_into_memory_is_refused_before_anything_is_built(
    settings: dict[str, Any], subject: str
) -> None:
    def never(*_: Any) -> StepTiming:
        raise AssertionError("a network was built")

    numbers = r"needs .*B of memory, but only 8\.0 GB is available; give a smaller --"
    with pytest.raises(SettingError, match=numbers) as caught:
        make_plan(1_000_000, 65, Overrides(threads=2, **settings), never, 8 * GB)
    assert caught.value.subject == subject


def test_both_numbers_are_named() -> None:
    with pytest.raises(SettingError) as caught:
        plan_with(8 * GB, hidden=2**63 - 1)
    assert caught.value.reason.startswith("a network of 2 x 9,223,372,036,854,775,807 needs 1.")


def test_a_hundred_million_parameters_are_allowed_where_there_is_memory_for_them() -> None:
    run_plan = plan_with(32 * GB, hidden=2900)
    assert run_plan.model_config.num_parameters(65) > 100_000_000
    assert not any("memory" in note for note in run_plan.notes)
    with pytest.raises(SettingError, match=r"^hidden"):
        plan_with(8 * GB, hidden=2900)


def test_a_plan_that_hardly_fits_has_a_note() -> None:
    needed = training_bytes(ModelConfig(hidden=2900), TrainConfig(threads=2), 65)
    (note,) = [note for note in plan_with(1.1 * needed, hidden=2900).notes if "memory" in note]
    assert note.startswith("memory is tight: training needs about 1")
    assert not any("memory" in note for note in plan_with(2 * needed, hidden=2900).notes)


def test_the_plan_never_chooses_a_network_that_hardly_fits() -> None:
    measured: list[ModelConfig] = []

    def measure_step(model: ModelConfig, train: TrainConfig, vocab_size: int) -> StepTiming:
        measured.append(model)
        return estimate_step(model, train, vocab_size)

    free = make_plan(1_000_000, 65, Overrides(threads=2), measure_step)
    memory = training_bytes(ModelConfig(hidden=128), free.train_config, 65) / 0.7
    measured.clear()
    limited = make_plan(1_000_000, 65, Overrides(threads=2), measure_step, memory)
    assert limited.model_config.hidden <= 128 < free.model_config.hidden
    assert all(training_bytes(model, limited.train_config, 65) <= memory for model in measured)


def test_a_text_whose_smallest_network_does_not_fit_is_refused() -> None:
    with pytest.raises(
        CharrnnError, match=r"^memory: a network of 2 x 64 with .* needs .* but only 1\.0 MB is available"
    ):
        plan_with(1_000_000)


def test_the_network_of_a_trained_model_is_not_blamed_on_an_option() -> None:
    with pytest.raises(CharrnnError, match=r"^memory: a network of 9 x 64"):
        plan_with(1_000_000, from_model="book", layers=9, hidden=64, embedding=0)
