"""`import charrnn` as a library."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import charrnn
from charrnn.api import Model
from charrnn.checkpoint import Checkpoint
from charrnn.errors import CorpusError, ModelFileError, SettingError, UnknownCharacterError
from tests.conftest import Charrnn

TEXT = "to be or not to be, that is the question:\n" * 40


@pytest.fixture(scope="module")
def model() -> charrnn.Model:
    return charrnn.train(TEXT, hidden=16, layers=1, steps=60)


def test_importing_it_loads_neither_torch_nor_numpy() -> None:
    code = "import sys, charrnn; print({'torch', 'numpy'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "set()\n"


def test_loading_and_sampling_never_import_torch(tiny_path: Path) -> None:
    use = f"charrnn.load({str(tiny_path)!r}).sample('fox', length=5)"
    code = f"import sys, charrnn; {use}; print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "False\n"


def test_every_public_name_is_there() -> None:
    assert all(hasattr(charrnn, name) for name in charrnn.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nonsense"):
        charrnn.nonsense  # noqa: B018


def test_what_is_trained_has_learned_something(model: charrnn.Model) -> None:
    assert model.score(TEXT).bits_per_char < 2.5  # an untrained model needs log2(17) = 4.1


def test_training_tells_a_listener_of_every_step() -> None:
    heard: list[object] = []
    charrnn.train("abcd" * 100, hidden=8, layers=1, steps=7, listen=heard.append)
    assert [type(event).__name__ for event in heard].count("Step") == 7


def test_a_saved_model_writes_the_same_text(model: charrnn.Model, tmp_path: Path) -> None:
    model.save(tmp_path / "m.safetensors")
    again = charrnn.load(tmp_path / "m.safetensors")
    assert again.sample("to", length=50, seed=3) == model.sample("to", length=50, seed=3)


def test_saving_twice_needs_permission(model: charrnn.Model, tmp_path: Path) -> None:
    model.save(tmp_path / "m.safetensors")
    with pytest.raises(ModelFileError, match="exists already"):
        model.save(tmp_path / "m.safetensors")
    model.save(tmp_path / "m.safetensors", replace=True)


def test_the_functions_are_the_methods(tiny: Checkpoint) -> None:
    model = charrnn.Model(tiny)
    assert charrnn.sample(model, "fox", length=9, seed=1) == model.sample("fox", length=9, seed=1)
    assert charrnn.score(model, "fox jumps") == model.score("fox jumps")


def test_a_wrong_setting_is_told_before_the_first_character(tiny: Checkpoint) -> None:
    with pytest.raises(SettingError, match="temperature"):
        charrnn.Model(tiny).stream("fox", temperature=float("nan"))


def test_an_unknown_character_is_told_before_the_first_character(tiny: Checkpoint) -> None:
    with pytest.raises(UnknownCharacterError, match=r"U\+00DF"):
        charrnn.Model(tiny).stream("groß")


def test_unknown_characters_can_be_skipped(tiny: Checkpoint) -> None:
    model = charrnn.Model(tiny)
    assert model.sample("foß", unknown="skip", length=9, seed=1) == model.sample("fo", length=9, seed=1)


def test_a_text_with_nothing_to_predict_cannot_be_scored(tiny: Checkpoint) -> None:
    with pytest.raises(CorpusError, match="fewer than two"):
        charrnn.Model(tiny).score("f")


def test_a_misspelled_setting_is_told() -> None:
    with pytest.raises(TypeError, match="hiden"):
        charrnn.train(TEXT, hiden=16, steps=1)  # type: ignore[call-arg]


def test_half_of_a_surrogate_pair_cannot_be_trained_on() -> None:
    with pytest.raises(CorpusError, match="surrogate"):
        charrnn.train("ab\ud800" * 100, steps=1)


def test_a_sample_without_an_end_needs_a_stream(tiny: Checkpoint) -> None:
    with pytest.raises(SettingError, match="length: invalid value 0"):
        charrnn.Model(tiny).sample(length=0)


def test_samples_are_those_of_one_prompt_after_the_other(tiny: Checkpoint) -> None:
    model = charrnn.Model(tiny)
    found = list(model.samples(["fox", "für", "dog"], count=2, length=20, seed=3))
    assert [(one.number, one.prompt) for one in found] == list(enumerate(["fox", "fox", "für", "für", "dog", "dog"]))
    assert found[0].text == model.sample("fox", length=20, seed=3) != found[1].text
    assert [one.error is not None for one in found] == [False, False, True, True, False, False]
    assert [one.text for one in model.samples(["für"], length=5, seed=3, unknown="skip")] != [""]


@pytest.mark.parametrize("asked", [{"prompts": "fox"}, {"count": 0}, {"length": 0}])
def test_samples_that_make_no_sense_are_refused_by_the_call_itself(tiny: Checkpoint, asked: dict[str, Any]) -> None:
    with pytest.raises(SettingError, match=next(iter(asked))):
        charrnn.Model(tiny).samples(**asked)


def test_what_a_sample_cost_is_what_score_says(model: charrnn.Model) -> None:
    (one,) = model.samples(["to be"], length=50, seed=1, logprobs=1, precision="fp32")
    told = sum(choice.nats for choice in one.choices)
    whole, prompt = model.score("to be" + one.text), model.score("to be")
    assert told == pytest.approx(whole.nats * whole.characters - prompt.nats * prompt.characters, rel=1e-4)
    assert one.nats == pytest.approx(told)


def test_a_text_is_read_once_for_many_samples(model: charrnn.Model, tmp_path: Path) -> None:
    prompt_state = model.read_prompt("or not ", prompt_state=model.read_prompt("to be "))
    text = model.sample("to be or not to", length=30, seed=1)
    assert model.sample("to", prompt_state=prompt_state, length=30, seed=1) == text
    model.save_state(prompt_state, tmp_path / "state")
    again = model.load_state(tmp_path / "state")
    assert [one.text for one in model.samples(["to"], prompt_state=again, length=30, seed=1)] == [text]


def test_what_another_model_has_read_is_refused(model: charrnn.Model, tiny: Checkpoint, tmp_path: Path) -> None:
    foreign = charrnn.Model(tiny).read_prompt("fox")
    for use in (
        lambda: model.sample(prompt_state=foreign),
        lambda: list(model.samples(prompt_state=foreign)),
        lambda: model.read_prompt("to be", prompt_state=foreign),
        lambda: model.save_state(foreign, tmp_path / "state"),
    ):
        with pytest.raises(SettingError, match="prompt_state: belongs to another model"):
            use()


def test_a_text_is_read_with_the_weights_that_it_is_continued_with(model: charrnn.Model) -> None:
    prompt_state = model.read_prompt("to be or not ", precision="fp32")
    options: dict[str, Any] = {"length": 30, "seed": 1, "precision": "fp32", "logprobs": 0}
    (one,) = model.samples(["to be"], prompt_state=prompt_state, **options)
    (whole,) = model.samples(["to be or not to be"], **options)
    assert one.nats == pytest.approx(whole.nats, rel=1e-9)


def test_lines_score_as_the_program_scores_them(tiny: Checkpoint, tiny_path: Path, charrnn: Charrnn) -> None:
    lines = ["The quick brown fox\n", "", "zzzz", "я"]
    found = list(Model(tiny).scores(lines))
    assert [score.num_predictions for score in found] == [20, 1, 5, 2]
    assert [score.unknown for score in found] == [0, 0, 0, 1]
    text = "".join(line.removesuffix("\n") + "\n" for line in lines)
    told = charrnn("score", tiny_path, "--total", "--nats", input=text.encode()).stdout.splitlines()
    assert [float(line.split(b"\t")[0]) for line in told] == pytest.approx([one.nats for one in found], abs=1e-4)
    assert next(Model(tiny).scores(iter(lines))).nats == pytest.approx(found[0].nats, abs=1e-4)
