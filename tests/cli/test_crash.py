"""Runs that are broken off by force: the same model comes out in the end."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from charrnn import checkpoint
from charrnn.training.checkpointing import Checkpointer
from tests.cli.conftest import CORPUS, ENDLESS, NETWORK, QUICK, Run, running
from tests.conftest import Charrnn, environment, one_line

EXACT = NETWORK[-6:]  # what makes two runs the same, and nothing raced
ROOT = Path(__file__).parents[2]


def forge(mode: str, times: int, seed: int) -> dict[str, Any]:
    """What ``forge.py`` reports, from a process that has no threads of other tests."""
    command = [sys.executable, "-m", "tests.cli.forge", mode, str(times), str(seed)]
    result = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, timeout=3000, check=True)
    report: dict[str, Any] = json.loads(result.stdout)
    return report


@pytest.mark.parametrize(
    ("mode", "times"),
    [("all", 4)]
    + [pytest.param(mode, times, marks=pytest.mark.slow) for mode, times in (("kill", 300), ("aim", 100))]
    + [pytest.param("signal", 200, marks=pytest.mark.slow)],
)
def test_whatever_breaks_a_run_off_it_ends_with_the_same_model(mode: str, times: int) -> None:
    report = forge(mode, times, seed=times)
    assert report["errors"] == []
    assert report["interruptions"] >= times
    assert report["runs"] > 0
    assert report["different models"] == 0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "corpus.txt").write_text(CORPUS)
    return tmp_path


@pytest.fixture
def done(tmp_path: Path, trained: Run) -> Path:
    """A folder with a run that is finished, ``charrnn train corpus.txt`` with the options QUICK."""
    shutil.copytree(trained.folder / "checkpoints", tmp_path / "checkpoints")
    (tmp_path / "corpus.txt").write_text(CORPUS)
    return tmp_path


def until_a_step(process: subprocess.Popen[bytes]) -> bytes:
    """What a training says up to its first evaluation."""
    told = b""
    while line := process.stderr.readline():
        told += line
        if line.startswith(b"step"):
            break
    return told


def test_a_hangup_saves_and_says_how_to_go_on(folder: Path, warm: list[str]) -> None:
    number = signal.SIGHUP
    with running("train", "corpus.txt", *ENDLESS, program=warm, cwd=folder) as process:
        until_a_step(process)
        started = time.monotonic()
        process.send_signal(number)
        _, told = process.communicate()
        assert time.monotonic() - started < 5
    lines = told.decode().splitlines()
    assert process.returncode == 128 + number
    assert lines[-2] == "resume: charrnn train --resume -o corpus corpus.txt"


@pytest.mark.parametrize("pair", [("SIGTERM", "SIGHUP"), ("SIGINT", "SIGINT")])
def test_two_signals_at_once_are_one(folder: Path, pair: tuple[str, str]) -> None:
    with running("train", "corpus.txt", *ENDLESS, "--save-every", "1000", cwd=folder) as process:
        until_a_step(process)
        until_a_step(process)
        for name in pair:  # to the process itself, for one that stands in might make one of them
            process.send_signal(getattr(signal, name))
            time.sleep(0.002)  # or two of a kind would be one to the system already
        _, told = process.communicate()
    assert b", everything saved" in told
    found = Checkpointer(folder / "checkpoints" / "corpus.safetensors", 60).find()
    assert found is not None
    assert re.search(rf"stopped at step {found[0].current.progress.step:,},", told.decode())


def test_a_second_signal_leaves_at_once_without_harm(folder: Path, warm: list[str]) -> None:
    with running("train", "corpus.txt", *ENDLESS, program=warm, cwd=folder) as process:
        until_a_step(process)
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGINT)
        process.communicate()
    assert process.returncode == 130
    checkpoint.load(folder / "checkpoints" / "corpus.safetensors")


def test_sigusr1_saves_and_goes_on(folder: Path, warm: list[str]) -> None:
    with running("train", "corpus.txt", *ENDLESS, "--save-every", "1000", program=warm, cwd=folder) as process:
        until_a_step(process)
        state = folder / "checkpoints" / "corpus.training.safetensors"
        state.unlink(missing_ok=True)
        process.send_signal(signal.SIGUSR1)
        while b"saved on request" not in (line := process.stderr.readline()):
            assert line
        assert process.poll() is None
        assert state.exists()


def test_a_signal_before_the_training_leaves_nothing_behind(folder: Path, warm: list[str]) -> None:
    os.mkfifo(folder / "pipe")
    with running("train", "pipe", *QUICK, program=warm, cwd=folder) as process, open(folder / "pipe", "wb") as pipe:
        pipe.write(b"as much of a text as there is")
        pipe.flush()
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        stdout, told = process.communicate()
    assert (process.returncode, stdout, told) == (130, b"", b"")
    assert {path.name for path in folder.iterdir()} == {"corpus.txt", "pipe"}


def test_two_trainings_of_one_name_are_one_too_many(folder: Path, charrnn: Charrnn, warm: list[str]) -> None:
    with running("train", "corpus.txt", *ENDLESS, program=warm, cwd=folder) as process:
        until_a_step(process)
        for more in ((), ("--force",), ("--resume",)):
            other = charrnn("train", "corpus.txt", *QUICK, *more)
            assert other.returncode == 1
            assert "another charrnn process is writing it" in one_line(other)


def test_a_run_that_was_killed_can_be_locked_again(folder: Path, charrnn: Charrnn) -> None:
    with running("train", "corpus.txt", *ENDLESS, cwd=folder) as process:
        until_a_step(process)
        process.kill()
    done = charrnn("train", "corpus.txt", "--resume", "--minutes", "0.0001")
    assert "the run has already taken" in one_line(done)
    assert not [path.name for path in (folder / "checkpoints").iterdir() if path.name.endswith((".tmp", ".lock"))]


@pytest.mark.parametrize("times", [100, pytest.param(2000, marks=pytest.mark.slow)])
def test_readers_never_see_a_torn_model(folder: Path, times: int, warm: list[str]) -> None:
    often = (*NETWORK, "--steps", str(1000 + 20 * times), "--patience", "0", "--save-every", "0.001")
    with running("train", "corpus.txt", *often, program=warm, cwd=folder) as process:
        until_a_step(process)
        loads, seen = 0, set()
        while loads < times or len(seen) < 3:
            seen.add(checkpoint.load(folder / "checkpoints" / "corpus.safetensors").training["steps"])
            loads += 1
        assert process.poll() is None


# What the user is told


def test_an_unfinished_run_is_not_overwritten_but_offered(folder: Path, charrnn: Charrnn, warm: list[str]) -> None:
    with running("train", "corpus.txt", *ENDLESS, program=warm, cwd=folder) as process:
        until_a_step(process)
        process.send_signal(signal.SIGTERM)
        process.communicate()
    told = one_line(charrnn("train", "corpus.txt", *ENDLESS))
    assert "has an unfinished run at step " in told
    assert told.endswith("add --resume to continue, --force to start again, or -o NAME to keep both\n")


def test_a_finished_run_may_be_resumed_for_nothing_or_for_more(done: Path, charrnn: Charrnn) -> None:
    told = one_line(charrnn("train", "corpus.txt", *QUICK))
    assert "exists already; add --resume and a larger budget to continue training" in told
    again = charrnn("train", "corpus.txt", *QUICK, "--resume")
    assert (again.returncode, again.stdout) == (0, b"checkpoints/corpus.safetensors\n")
    assert b"already finished at step 20; give a larger budget" in again.stderr
    more = charrnn("train", "corpus.txt", "--resume", "--steps", "30")
    assert more.returncode == 0
    record = checkpoint.load(done / "checkpoints" / "corpus.safetensors").training
    assert record["steps"] == 30
    assert record["changed"] == [
        "step 20: the budget is 30 steps instead of 20 steps; the learning-rate schedule is stretched"
    ]
    told = charrnn("info", "corpus").stdout.decode()
    assert "\nchanged     step 20: the budget is 30 steps" in told
    assert "\nsimilar " in told  # and not: repeat


@pytest.mark.parametrize(
    ("options", "code", "told"),
    [
        (("--hidden", "17"), 2, "--hidden: cannot be 17, because the run started with 16"),
        (("--cell", "gru"), 2, "--cell: cannot be gru, because the run started with lstm"),
        (("--lr", "0.5"), 2, "--lr: cannot be 0.5"),
        (("--steps", "20"), 0, ""),
        (("--steps", "19"), 2, "--steps: cannot be 19, because the run has already taken 20 steps"),
        (("--force",), 2, "--resume: cannot be combined with --force"),
    ],
)
def test_a_resumed_run_is_the_same_run(
    done: Path, charrnn: Charrnn, options: tuple[str, ...], code: int, told: str
) -> None:
    result = charrnn("train", "corpus.txt", "--resume", *options)
    assert result.returncode == code
    if code:
        assert told in one_line(result)


def test_another_text_under_the_same_name_is_refused(done: Path, charrnn: Charrnn) -> None:
    (done / "corpus.txt").write_text(CORPUS + "!")
    assert "is not the text of this run: its SHA-256 is " in one_line(charrnn("train", "corpus.txt", "--resume"))


def test_the_text_itself_is_never_written_over(folder: Path, charrnn: Charrnn) -> None:
    (folder / "data.jsonl").write_text(CORPUS)
    for more, told in (((), "data.jsonl: exists already"), (("--force",), "data.jsonl: is the text to train on")):
        assert told in one_line(charrnn("train", "data.jsonl", "-o", "./data", *QUICK, *more))
    assert (folder / "data.jsonl").read_text() == CORPUS


def test_a_model_that_is_lost_is_written_again(done: Path, charrnn: Charrnn) -> None:
    model = done / "checkpoints" / "corpus.safetensors"
    data = model.read_bytes()
    model.unlink()
    assert "is missing, though its run is finished; add --resume to write it again" in one_line(
        charrnn("train", "corpus.txt", *QUICK)
    )
    (done / "copy.txt").write_text(CORPUS)
    assert charrnn("train", "copy.txt", "-o", "corpus", "--resume").returncode == 0
    assert model.read_bytes() == data


def test_there_must_be_a_run_to_resume(folder: Path, charrnn: Charrnn) -> None:
    told = one_line(charrnn("train", "corpus.txt", "--resume"))
    assert told.endswith("has no run to resume; leave out --resume to start one\n")
    assert {path.name for path in folder.iterdir()} == {"corpus.txt"}


def test_a_state_is_no_model_to_sample(done: Path, charrnn: Charrnn) -> None:
    state = done / "checkpoints" / "corpus.training.safetensors"
    os.utime(state, (2**31, 2**31))
    assert charrnn("sample", "-n", "5").returncode == 0  # the newest model is not the newest file
    assert "is the state of a training run, but not a charrnn model" in one_line(charrnn("sample", state))


# --from


def test_from_maps_the_vocabulary_by_character_and_reports_it(done: Path, charrnn: Charrnn) -> None:
    (done / "new.txt").write_text("äöü and the lazy dog\n" * 60)
    result = charrnn("train", "new.txt", "--from", "corpus", "--steps", "5", *EXACT)
    assert result.returncode == 0
    assert b"shared characters, 3 new, " in result.stderr
    old, new = (checkpoint.load(done / "checkpoints" / f"{name}.safetensors") for name in ("corpus", "new"))
    assert new.vocabulary.symbols == old.vocabulary.symbols + "äöü"
    assert (new.model_config.hidden, new.model_config.layers) == (old.model_config.hidden, old.model_config.layers)
    assert new.training["from"]["model"] == "corpus"


def test_frozen_it_refuses_new_characters_by_name(done: Path, charrnn: Charrnn) -> None:
    (done / "new.txt").write_text("äöü and the lazy dog\n" * 60)
    told = one_line(charrnn("train", "new.txt", "--from", "corpus", "--freeze-vocabulary"))
    assert "never saw 'ä' (U+00E4 LATIN SMALL LETTER A WITH DIAERESIS), " in told
    (done / "new.txt").write_text("the lazy dog\n" * 60)
    frozen = charrnn("train", "new.txt", "--from", "corpus", "--freeze-vocabulary", "--steps", "5", *EXACT)
    assert frozen.returncode == 0
    told = one_line(charrnn("train", "new.txt", "--from", "corpus", "--hidden", "99", "-o", "other"))
    assert "--hidden: 99 cannot be combined with --from corpus, which has 16; leave it out" in told


def test_a_run_from_a_model_is_resumed_exactly(done: Path, charrnn: Charrnn, warm: list[str]) -> None:
    (done / "new.txt").write_text("äöü and the lazy dog\n" * 60)
    tuned = ("train", "new.txt", "--from", "corpus", *NETWORK, "--steps", "600", "--patience", "0")
    assert charrnn(*tuned, "-o", "whole").returncode == 0
    with running(*tuned, "-o", "broken", program=warm, cwd=done) as process:
        until_a_step(process)
        process.send_signal(signal.SIGINT)
        process.communicate()
    assert process.returncode == 130
    assert charrnn("train", "new.txt", "-o", "broken", "--resume").returncode == 0
    whole, broken = ((done / "checkpoints" / f"{name}.safetensors").read_bytes() for name in ("whole", "broken"))
    assert whole == broken


def test_a_run_whose_engine_cannot_run_here_says_which_one_can(
    charrnn: Charrnn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "corpus.txt").write_text(CORPUS)
    options = [*QUICK[: QUICK.index("--engine")], "--steps", "4"]
    assert charrnn("train", "corpus.txt", *options, "--engine", "native").returncode == 0
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "charrnn.rnn.recurrence", None)  # as where llvmlite is missing
        refused = charrnn("train", "corpus.txt", "--resume", "--steps", "6")
        assert refused.returncode == 1
        last_line = refused.stderr.decode().splitlines()[-1]
        assert last_line.startswith("charrnn: --engine: native is not available here (")
        assert refused.stderr.endswith(b"; add --engine torch\n")
        assert charrnn("train", "corpus.txt", "--resume", "--steps", "6", "--engine", "torch").returncode == 0
