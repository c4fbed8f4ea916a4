"""`import charrnn` as a library."""

import copy
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

import charrnn
from charrnn.api import Model
from charrnn.checkpoint import Checkpoint
from charrnn.config import ReadConfig, Unit
from charrnn.data.vocabulary import Vocabulary
from charrnn.errors import CharrnnError, CorpusError, ModelFileError, SettingError, UnknownCharacterError
from charrnn.generation.prompt_state import PromptState
from charrnn.rnn.torch_rnn import CharRNN
from tests.conftest import Charrnn, make_checkpoint

TEXT = "to be or not to be, that is the question:\n" * 40


@pytest.fixture(scope="module")
def model() -> charrnn.Model:
    return charrnn.train(TEXT, hidden=16, layers=1, steps=60)


def test_importing_charrnn_imports_neither_torch_nor_numpy() -> None:
    code = "import sys, charrnn; print({'torch', 'numpy'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "set()\n"


def test_loading_and_sampling_do_not_import_torch(tiny_path: Path) -> None:
    script = f"charrnn.load({str(tiny_path)!r}).sample('fox', length=5)"
    code = f"import sys, charrnn; {script}; print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "False\n"


def test_every_public_name_exists() -> None:
    assert all(hasattr(charrnn, name) for name in charrnn.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nonsense"):
        charrnn.nonsense  # noqa: B018


def test_a_trained_model_predicts_better_than_an_untrained_one(model: charrnn.Model) -> None:
    assert model.score(TEXT).bits_per_char < 2.5  # an untrained model needs log2(17) = 4.1


def test_training_reports_every_step_to_the_listener() -> None:
    events: list[object] = []
    charrnn.train("abcd" * 100, hidden=8, layers=1, steps=7, listen=events.append)
    assert [type(event).__name__ for event in events].count("Step") == 7


def test_a_saved_model_generates_the_same_text(model: charrnn.Model, tmp_path: Path) -> None:
    model.save(tmp_path / "m.safetensors")
    loaded = charrnn.load(tmp_path / "m.safetensors")
    assert loaded.sample("to", length=50, seed=3) == model.sample("to", length=50, seed=3)


def test_an_existing_model_is_replaced_only_on_request(model: charrnn.Model, tmp_path: Path) -> None:
    model.save(tmp_path / "m.safetensors")
    with pytest.raises(ModelFileError, match="exists already"):
        model.save(tmp_path / "m.safetensors")
    model.save(tmp_path / "m.safetensors", replace=True)


def test_the_functions_equal_the_methods(tiny: Checkpoint) -> None:
    model = charrnn.Model(tiny)
    assert charrnn.sample(model, "fox", length=9, seed=1) == model.sample("fox", length=9, seed=1)
    assert charrnn.score(model, "fox jumps") == model.score("fox jumps")


def test_an_invalid_setting_is_rejected_before_the_first_character(tiny: Checkpoint) -> None:
    with pytest.raises(SettingError, match="temperature"):
        charrnn.Model(tiny).stream("fox", temperature=float("nan"))


def test_an_unknown_character_is_rejected_before_the_first_character(tiny: Checkpoint) -> None:
    with pytest.raises(UnknownCharacterError, match=r"U\+00DF"):
        charrnn.Model(tiny).stream("groß")


def test_unknown_characters_can_be_skipped(tiny: Checkpoint) -> None:
    model = charrnn.Model(tiny)
    assert model.sample("foß", unknown="skip", length=9, seed=1) == model.sample("fo", length=9, seed=1)


def test_a_text_with_nothing_to_predict_cannot_be_scored(tiny: Checkpoint) -> None:
    with pytest.raises(CorpusError, match="fewer than two"):
        charrnn.Model(tiny).score("f")


def test_a_misspelled_setting_is_rejected() -> None:
    with pytest.raises(TypeError, match="hiden"):
        charrnn.train(TEXT, hiden=16, steps=1)  # type: ignore[call-arg]


def test_a_lone_surrogate_cannot_be_trained_on() -> None:
    with pytest.raises(CorpusError, match="surrogate"):
        charrnn.train("ab\ud800" * 100, steps=1)


def test_an_endless_sample_is_available_only_as_a_stream(tiny: Checkpoint) -> None:
    with pytest.raises(SettingError, match="length: invalid value 0"):
        charrnn.Model(tiny).sample(length=0)


def test_samples_come_in_the_order_of_the_prompts(tiny: Checkpoint) -> None:
    model = charrnn.Model(tiny)
    samples = list(model.samples(["fox", "für", "dog"], count=2, length=20, seed=3))
    assert [(sample.number, sample.prompt) for sample in samples] == list(
        enumerate(["fox", "fox", "für", "für", "dog", "dog"])
    )
    assert samples[0].text == model.sample("fox", length=20, seed=3) != samples[1].text
    assert [sample.error is not None for sample in samples] == [False, False, True, True, False, False]
    assert [sample.text for sample in model.samples(["für"], length=5, seed=3, unknown="skip")] != [""]


@pytest.mark.parametrize("arguments", [{"prompts": "fox"}, {"count": 0}, {"length": 0}])
def test_invalid_arguments_of_samples_are_rejected_before_iteration(
    tiny: Checkpoint, arguments: dict[str, Any]
) -> None:
    with pytest.raises(SettingError, match=next(iter(arguments))):
        charrnn.Model(tiny).samples(**arguments)


def test_the_nats_of_a_sample_equal_those_of_score(model: charrnn.Model) -> None:
    (sample,) = model.samples(["to be"], length=50, seed=1, logprobs=1, precision="fp32")
    nats = sum(choice.nats for choice in sample.choices)
    text, prompt = model.score("to be" + sample.text), model.score("to be")
    assert nats == pytest.approx(text.nats * text.characters - prompt.nats * prompt.characters, rel=1e-4)
    assert sample.nats == pytest.approx(nats)


def test_samples_can_start_from_a_prompt_state(model: charrnn.Model, tmp_path: Path) -> None:
    prompt_state = model.read_prompt("or not ", prompt_state=model.read_prompt("to be "))
    text = model.sample("to be or not to", length=30, seed=1)
    assert model.sample("to", prompt_state=prompt_state, length=30, seed=1) == text
    model.save_state(prompt_state, tmp_path / "state")
    loaded = model.load_state(tmp_path / "state")
    assert [sample.text for sample in model.samples(["to"], prompt_state=loaded, length=30, seed=1)] == [text]


def test_the_prompt_state_of_another_model_is_rejected(
    model: charrnn.Model, tiny: Checkpoint, tmp_path: Path
) -> None:
    other_state = charrnn.Model(tiny).read_prompt("fox")
    for call in (
        lambda: model.sample(prompt_state=other_state),
        lambda: list(model.samples(prompt_state=other_state)),
        lambda: model.read_prompt("to be", prompt_state=other_state),
        lambda: model.save_state(other_state, tmp_path / "state"),
    ):
        with pytest.raises(SettingError, match="prompt_state: belongs to another model"):
            call()


def test_a_prompt_state_is_computed_with_the_weights_of_the_sample(model: charrnn.Model) -> None:
    prompt_state = model.read_prompt("to be or not ", precision="fp32")
    options: dict[str, Any] = {"length": 30, "seed": 1, "precision": "fp32", "logprobs": 0}
    (continued,) = model.samples(["to be"], prompt_state=prompt_state, **options)
    (direct,) = model.samples(["to be or not to be"], **options)
    assert continued.nats == pytest.approx(direct.nats, rel=1e-9)


def test_the_api_and_the_command_give_lines_the_same_scores(
    tiny: Checkpoint, tiny_path: Path, charrnn: Charrnn
) -> None:
    lines = ["The quick brown fox\n", "", "zzzz", "я"]
    scores = list(Model(tiny).scores(lines))
    assert [score.num_predictions for score in scores] == [20, 1, 5, 2]
    assert [score.unknown for score in scores] == [0, 0, 0, 1]
    text = "".join(line.removesuffix("\n") + "\n" for line in lines)
    rows = charrnn("score", tiny_path, "--total", "--nats", input=text.encode()).stdout.splitlines()
    assert [float(line.split(b"\t")[0]) for line in rows] == pytest.approx([score.nats for score in scores], abs=1e-4)
    assert next(Model(tiny).scores(iter(lines))).nats == pytest.approx(scores[0].nats, abs=1e-4)


def test_long_lines_are_scored_as_they_arrive(tiny: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("charrnn.api._BYTES_PER_BATCH", 1000)
    taken = 0

    def lines() -> Iterator[str]:
        nonlocal taken
        while True:
            taken += 1
            yield "fox" * 100

    scores = Model(tiny).scores(lines())
    assert [next(scores).number for _ in range(9)] == [*range(1, 10)]
    assert taken <= 12
    assert list(Model(tiny).scores([])) == []


@pytest.mark.parametrize("copied", [lambda model: pickle.loads(pickle.dumps(model)), copy.copy, copy.deepcopy])
@pytest.mark.parametrize("after_sampling", [False, True])
def test_a_model_can_be_copied_and_pickled(copied: Callable[[Model], Model], after_sampling: bool) -> None:
    model = Model(make_checkpoint())
    expected = model.sample("fox", length=1000, seed=1)
    original = model if after_sampling else Model(make_checkpoint())
    assert copied(original).sample("fox", length=1000, seed=1) == expected


def test_a_model_and_its_states_work_in_other_processes() -> None:
    model = Model(make_checkpoint())
    state = model.read_prompt("The quick")
    expected = model.sample(" ", length=20, seed=1, prompt_state=state)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        assert pool.submit(sample_after, model, state).result() == expected


def sample_after(model: Model, state: PromptState) -> str:
    return model.sample(" ", length=20, seed=1, prompt_state=state)


@pytest.mark.parametrize("unit", ["char", "byte"])
@pytest.mark.parametrize("text", ["\ud800", "\udf00\ud801x"])
def test_halves_of_surrogate_pairs_are_charrnn_errors(unit: Unit, text: str) -> None:
    checkpoint = make_checkpoint()
    if unit == "byte":
        vocabulary = Vocabulary.from_counts({}, "byte")
        network = CharRNN(checkpoint.model_config, len(vocabulary))
        network.initialize(seed=0)
        checkpoint = Checkpoint(
            checkpoint.model_config, vocabulary, network.tensors(), read_config=ReadConfig(unit="byte")
        )
    model = Model(checkpoint)
    for call in (
        lambda: model.sample(text),
        lambda: model.read_prompt(text),
        lambda: model.score(text),
        lambda: charrnn.train(text, unit=unit, steps=1),
        lambda: charrnn.train("abc", name=text),
    ):
        with pytest.raises(CharrnnError):
            call()
    (scored,) = model.scores([text])
    assert scored.unknown == (3 * len(text.removesuffix("x")) if unit == "char" else 0)
    (sample,) = model.samples([text])
    assert isinstance(sample.error, CharrnnError)


@pytest.mark.parametrize("name", ["a" * 5000, "a/" * 5000, "a\0b", "\ud800"])
def test_impossible_paths_are_charrnn_errors(name: str, tiny: Checkpoint) -> None:
    model = Model(tiny)
    for call in (
        lambda: charrnn.load(name),
        lambda: model.save(name),
        lambda: model.load_state(name),
        lambda: model.save_state(model.read_prompt("fox"), name),
    ):
        with pytest.raises(CharrnnError):
            call()


@pytest.mark.parametrize(
    "settings",
    [{"hidden": 10**5000}, {"cell": ["lstm"]}, {"unit": 5}, {"encoding": 5}, {"separator": 5},
     {"learning_rate": 10**400}, {"documents": None, "separator": ["a"]}, {"encoding": "a\0b"},
     {"minutes": "1"}, {"seed": -1}],
)  # fmt: skip
def test_impossible_settings_of_a_training_are_charrnn_errors(settings: dict[str, Any]) -> None:
    with pytest.raises(SettingError):
        charrnn.train(TEXT, **settings)


@pytest.mark.parametrize("count", [0, 10**400, "2"])
def test_impossible_counts_are_charrnn_errors(count: Any, tiny: Checkpoint) -> None:
    with pytest.raises(SettingError, match="count: invalid value"):
        Model(tiny).samples(["a"], count=count, length=2)


@pytest.mark.parametrize(
    "settings",
    [{"temperature": "1"}, {"temperature": [1, 2]}, {"temperature": 10**400}, {"stop": 5}, {"stop": [""]},
     {"allow": 5}, {"forbid": ["a"]}, {"keep_stop": "yes"}, {"utf8": None}, {"top_k": 10**5000}, {"unknown": 5}],
)  # fmt: skip
def test_impossible_settings_of_a_sample_are_charrnn_errors(settings: dict[str, Any], tiny: Checkpoint) -> None:
    with pytest.raises(SettingError):
        Model(tiny).sample(**settings)
