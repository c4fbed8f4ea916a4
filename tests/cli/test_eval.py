"""``charrnn eval``: parts of the text, several models, baselines and dynamic evaluation."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import CORPUS, QUICK, Run
from tests.conftest import Charrnn, one_line


def facts_of(result: subprocess.CompletedProcess[bytes]) -> list[dict[str, Any]]:
    assert result.returncode == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.mark.parametrize("options", [(), ("--lines",), ("--documents", "dog")], ids=["text", "lines", "separated"])
def test_split_gives_the_parts_of_the_training_run(
    options: tuple[str, ...], charrnn: Charrnn, tmp_path: Path
) -> None:
    (tmp_path / "a.txt").write_text("".join(f"the dog said {number**3}\n" for number in range(400)))
    assert charrnn("train", "a.txt", *QUICK, *options).returncode == 0
    training = json.loads(charrnn("info", "a", "--json").stdout)["training"]
    train, validation = facts_of(charrnn("eval", "a", "a.txt", "--split", "--json"))
    assert (train["part"], validation["part"]) == ("train", "validation")
    assert validation["characters"] == training["corpus"]["validation_characters"] - 1
    assert validation["nats"] == pytest.approx(training["validation_nats"], abs=1e-5)
    assert train["characters"] > 3 * validation["characters"]
    (tmp_path / "a.txt").write_text("the dog said 0\n" * 400)
    assert "a.txt: is not the text that a was trained on" in one_line(charrnn("eval", "a", "a.txt", "--split"))


def test_rare_characters_count_as_unknown_as_in_training(charrnn: Charrnn, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("".join(f"the dog said {chr(200 + number)}\n" for number in range(400)))
    assert charrnn("train", "a.txt", *QUICK, "--min-count", 5).returncode == 0
    nats = json.loads(charrnn("info", "a", "--json").stdout)["training"]["validation_nats"]
    for unknown in ("error", "skip"):
        _, validation = facts_of(charrnn("eval", "a", "a.txt", "--split", "--json", "--unknown", unknown))
        assert validation["nats"] == pytest.approx(nats, abs=1e-5)


@pytest.mark.parametrize("options", [("--unit", "byte", "--lines"), ("--lines",), ("--documents", "dog")])
def test_baselines_support_bytes_and_documents(options: tuple[str, ...], charrnn: Charrnn, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xff\xc3\xa9 and dog\n" * 100 if "byte" in options else b"and dog\n" * 200)
    assert charrnn("train", "a.txt", *QUICK, *options).returncode == 0
    facts = facts_of(charrnn("eval", "a", "a.txt", "--split", "--baselines", "--json"))
    assert all(result["bits_per_char"] < 3 for result in facts[2:])
    assert facts[0]["unit"] == ("byte" if "byte" in options else "char")


def test_split_needs_a_model_with_a_validation_part(charrnn: Charrnn, tiny_path: Path, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(CORPUS)
    assert charrnn("train", "a.txt", *QUICK, "--validation", 0).returncode == 0
    assert "a: was trained on all of its text" in one_line(charrnn("eval", "a", "a.txt", "--split"))


def test_several_models_are_compared_in_a_table(trained: Run, charrnn: Charrnn, tiny_path: Path) -> None:
    text = trained.folder / "corpus.txt"
    models = (trained.model, text, "-m", tiny_path)
    corpus, tiny = facts_of(charrnn("eval", *models, "--json"))
    assert [corpus["model"], tiny["model"]] == ["corpus", "tiny"]
    assert facts_of(charrnn("eval", tiny_path, text, "--json")) == [tiny]
    assert corpus["nats"] < tiny["nats"]
    for facts in (corpus, tiny):
        low, high = facts["bits_per_char_95"]
        assert low < facts["bits_per_char"] < high
    header, first, second = charrnn("eval", *models).stdout.decode().splitlines()
    assert header.split() == ["bits", "per", "character", "95", "%", "within", "nats", "characters"]
    assert first.split()[:2] == ["corpus", f"{corpus['bits_per_char']:.4f}"]
    assert second.split()[:2] == ["tiny", f"{tiny['bits_per_char']:.4f}"]
    assert len({len(line) for line in (header, first, second)}) == 1
    assert "cannot be combined with stdin, which can be read only once" in one_line(
        charrnn("eval", trained.model, "-", "-m", tiny_path)
    )


def test_baselines_are_measured_on_the_validation_text(trained: Run, charrnn: Charrnn, tmp_path: Path) -> None:
    """The validation text repeats the training text: order 8 predicts it well, order 1 does not."""
    text = trained.folder / "corpus.txt"
    split = facts_of(charrnn("eval", trained.model, text, "--split", "--baselines", "--json"))
    baselines = {facts["baseline"]: facts["bits_per_char"] for facts in split[2:]}
    names = [*(f"order-{order} Markov" for order in range(1, 9)), "gzip", "xz", "zstd --ultra"]
    assert list(baselines) == names
    assert baselines["order-8 Markov"] < 0.2 < 0.5 < baselines["order-1 Markov"]
    assert all(baselines[name] < 1 for name in names[-3:])
    assert {facts["characters"] for facts in split[1:-3]} == {split[1]["characters"]}

    (tmp_path / "training.txt").write_text(CORPUS[: len(CORPUS) * 8 // 10])
    (tmp_path / "validation.txt").write_text(CORPUS[len(CORPUS) * 8 // 10 :])
    separate = facts_of(
        charrnn("eval", trained.model, "validation.txt", "--baselines", "--training", "training.txt", "--json")
    )
    assert separate[1:] == split[2:]
    table = charrnn(
        "eval", trained.model, "validation.txt", "--baselines", "--training", "training.txt"
    ).stdout.decode()
    assert table.splitlines()[2].startswith("order-1 Markov ")


def test_dynamic_evaluation_is_shown_separately(trained: Run, charrnn: Charrnn) -> None:
    text = trained.folder / "corpus.txt"
    (static,) = facts_of(charrnn("eval", trained.model, text, "--json"))
    (dynamic,) = facts_of(charrnn("eval", trained.model, text, "--json", "--dynamic"))
    assert dynamic["nats"] == pytest.approx(static["nats"], abs=1e-6)
    assert dynamic["dynamic_nats"] < dynamic["nats"] - 0.1
    lines = charrnn("eval", trained.model, text, "--dynamic").stdout.decode().splitlines()
    assert ", state carried" in lines[0]
    assert lines[1].startswith(f"{dynamic['dynamic_bits_per_char']:.4f} bits")
    assert ", dynamic evaluation" in lines[1]


def test_dynamic_evaluation_skips_the_training_part(trained: Run, charrnn: Charrnn) -> None:
    text = trained.folder / "corpus.txt"
    parts = facts_of(charrnn("eval", trained.model, text, "--split", "--dynamic", "--json"))
    assert ["dynamic_nats" in part for part in parts] == [False, True]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--baselines", "--baselines: given without the training text; add --split or --training FILE"),
        ("--training corpus.txt", "--training: given without --baselines"),
        (
            "--split --baselines --training corpus.txt",
            "--training: cannot be combined with --split; give one of them",
        ),
        ("--reset 0", "--reset: invalid value 0"),
        ("-m corpus", "--model: given twice with the same name"),
    ],
)
def test_invalid_options_are_wrong_usage(options: str, message: str, trained: Run, charrnn: Charrnn) -> None:
    result = charrnn("eval", "corpus", "corpus.txt", *options.split(), cwd=trained.folder)
    assert result.returncode == 2
    assert message in one_line(result)


def test_figures_per_byte_are_marked(charrnn: Charrnn, tiny_path: Path, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(CORPUS)
    assert charrnn("train", "a.txt", *QUICK, "--unit", "byte").returncode == 0
    assert "note: a predicts bytes" in charrnn("eval", "a", "a.txt").stderr.decode()
    assert "(of bytes)" in charrnn("eval", "a", "a.txt", "--reset", 9, "-m", tiny_path).stdout.decode()


def test_a_text_shorter_than_the_reset_gets_a_note(trained: Run, charrnn: Charrnn) -> None:
    result = charrnn("eval", trained.model, trained.folder / "corpus.txt", "--reset", 10**6)
    assert result.returncode == 0
    assert result.stderr.startswith(b"note: the text is shorter than 1,000,000 characters")


def test_stdin_is_either_the_text_or_the_training_text(trained: Run, charrnn: Charrnn) -> None:
    def run(*texts: str) -> str:
        text = CORPUS.encode()
        result = charrnn("eval", "corpus", *texts, "--baselines", cwd=trained.folder, input=text)
        return result.stderr.decode() if result.returncode else ""

    assert "--training: stdin is already the text to evaluate" in run("-", "--training", "-")
    assert run("-", "corpus.txt", "--training", "corpus.txt") == run("corpus.txt", "--training", "-") == ""
