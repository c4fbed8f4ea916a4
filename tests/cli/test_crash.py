"""Interrupted training runs: resuming them gives the same model."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from charrnn import checkpoint
from charrnn.training import run_state
from charrnn.training.checkpointing import Checkpointer
from charrnn.training.trainer import Trainer
from tests.cli.conftest import CORPUS, ENDLESS, NETWORK, QUICK, Run, running
from tests.cli.forge import COMBINATIONS
from tests.conftest import Charrnn, environment, make_checkpoint, one_line
from tests.warm import PYTHON

EXACT = NETWORK[-6:]  # options without autotuning, so that two runs are equal
FORGE = Path(__file__).with_name("forge.py")


def forge(warm: list[str], mode: str, times: int, seed: int, names: Sequence[str]) -> list[dict[str, Any]]:
    """Return the reports of ``forge.py`` for the named combinations, run in a process without other threads."""
    command = [*warm, PYTHON, FORGE, mode, str(times), str(seed), *names]
    result = subprocess.run(command, env=environment(), stdout=subprocess.PIPE, timeout=3000, check=True)
    return [json.loads(line) for line in result.stdout.splitlines()]


def assert_equal_files(report: dict[str, Any], times: int) -> None:
    """Check the report of ``forge.py`` for one combination."""
    assert report["errors"] == []
    assert report["different"] == []
    assert report["interruptions"] >= times
    assert report["finished"] > 0


def test_interrupted_runs_with_some_options_end_with_the_same_files(warm: list[str]) -> None:
    seed = int(os.environ.get("FUZZ_SEED", "0"))
    names = random.Random(seed).sample(sorted(COMBINATIONS), 3)
    for report in forge(warm, "all", 2, seed, names):
        assert_equal_files({"seed": seed, **report}, 2)


@pytest.mark.slow
@pytest.mark.parametrize("name", COMBINATIONS)
def test_interrupted_runs_end_with_the_same_files(warm: list[str], name: str) -> None:
    (report,) = forge(warm, "all", 30, 0, [name])
    assert_equal_files(report, 30)


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "times"), [("kill", 300), ("aim", 100), ("signal", 200)])
def test_a_run_that_is_interrupted_hundreds_of_times_ends_with_the_same_files(
    warm: list[str], mode: str, times: int
) -> None:
    (report,) = forge(warm, mode, times, times, ["dropout torch"])
    assert_equal_files(report, times)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "corpus.txt").write_text(CORPUS)
    return tmp_path


@pytest.fixture
def finished(tmp_path: Path, trained: Run) -> Path:
    """A directory with a finished run of ``charrnn train corpus.txt`` with the options QUICK."""
    shutil.copytree(trained.folder / "checkpoints", tmp_path / "checkpoints")
    (tmp_path / "corpus.txt").write_text(CORPUS)
    return tmp_path


def read_to_evaluation(process: subprocess.Popen[bytes]) -> bytes:
    """Read stderr of a training run up to the next evaluation, and return it."""
    output = b""
    while line := process.stderr.readline():
        output += line
        if line.startswith(b"step"):
            break
    return output


def test_a_hangup_saves_the_run_and_prints_the_resume_command(directory: Path, warm: list[str]) -> None:
    number = signal.SIGHUP
    with running("train", "corpus.txt", *ENDLESS, program=warm, cwd=directory) as process:
        read_to_evaluation(process)
        started = time.monotonic()
        process.send_signal(number)
        _, stderr = process.communicate()
        assert time.monotonic() - started < 5
    lines = stderr.decode().splitlines()
    assert process.returncode == 128 + number
    assert lines[-2] == "resume: charrnn train --resume -o corpus corpus.txt"


@pytest.mark.parametrize("pair", [("SIGTERM", "SIGHUP"), ("SIGINT", "SIGINT")])
def test_two_signals_in_quick_succession_count_as_one(directory: Path, pair: tuple[str, str]) -> None:
    with running("train", "corpus.txt", *ENDLESS, "--save-every", "1000", cwd=directory) as process:
        read_to_evaluation(process)
        read_to_evaluation(process)
        for name in pair:  # without `warm`, because the client could merge the signals
            process.send_signal(getattr(signal, name))
            time.sleep(0.002)  # otherwise the system merges two equal signals
        _, stderr = process.communicate()
    assert b", everything saved" in stderr
    state = Checkpointer(directory / "checkpoints" / "corpus.safetensors", 60).find()
    assert state is not None
    assert re.search(rf"stopped at step {state[0].current.progress.step:,},", stderr.decode())


def test_a_second_signal_stops_at_once_and_keeps_the_model(directory: Path, warm: list[str]) -> None:
    with running("train", "corpus.txt", *ENDLESS, program=warm, cwd=directory) as process:
        read_to_evaluation(process)
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGINT)
        process.communicate()
    assert process.returncode == 130
    checkpoint.load(directory / "checkpoints" / "corpus.safetensors")


def test_sigusr1_saves_and_continues(directory: Path, warm: list[str]) -> None:
    with running("train", "corpus.txt", *ENDLESS, "--save-every", "1000", program=warm, cwd=directory) as process:
        read_to_evaluation(process)
        state = directory / "checkpoints" / "corpus.training.safetensors"
        state.unlink(missing_ok=True)
        process.send_signal(signal.SIGUSR1)
        while b"saved on request" not in (line := process.stderr.readline()):
            assert line
        assert process.poll() is None
        assert state.exists()


def test_a_signal_before_training_leaves_no_files(directory: Path, warm: list[str]) -> None:
    os.mkfifo(directory / "pipe")
    with (
        running("train", "pipe", *QUICK, program=warm, cwd=directory) as process,
        open(directory / "pipe", "wb") as pipe,
    ):
        pipe.write(b"as much of a text as there is")
        pipe.flush()
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate()
    assert (process.returncode, stdout, stderr) == (130, b"", b"")
    assert {path.name for path in directory.iterdir()} == {"corpus.txt", "pipe"}


def test_a_model_cannot_be_trained_by_two_processes(directory: Path, charrnn: Charrnn, warm: list[str]) -> None:
    with running("train", "corpus.txt", *ENDLESS, program=warm, cwd=directory) as process:
        read_to_evaluation(process)
        for options in ((), ("--force",), ("--resume",)):
            result = charrnn("train", "corpus.txt", *QUICK, *options)
            assert result.returncode == 1
            assert "another charrnn process is writing it" in one_line(result)


def test_a_killed_run_leaves_no_lock(directory: Path, charrnn: Charrnn) -> None:
    with running("train", "corpus.txt", *ENDLESS, cwd=directory) as process:
        read_to_evaluation(process)
        process.kill()
    result = charrnn("train", "corpus.txt", "--resume", "--minutes", "0.0001")
    assert "the run has already taken" in one_line(result)
    assert not [path.name for path in (directory / "checkpoints").iterdir() if path.name.endswith((".tmp", ".lock"))]


@pytest.mark.parametrize("times", [100, pytest.param(2000, marks=pytest.mark.slow)])
def test_readers_never_see_a_partly_written_model(directory: Path, times: int, warm: list[str]) -> None:
    often = (*NETWORK, "--steps", str(1000 + 20 * times), "--patience", "0", "--save-every", "0.001")
    with running("train", "corpus.txt", *often, program=warm, cwd=directory) as process:
        read_to_evaluation(process)
        loads, seen = 0, set()
        while loads < times or len(seen) < 3:
            seen.add(checkpoint.load(directory / "checkpoints" / "corpus.safetensors").training.steps)
            loads += 1
        assert process.poll() is None


# Messages


def test_an_unfinished_run_is_not_overwritten_and_resume_is_suggested(
    directory: Path, charrnn: Charrnn, warm: list[str]
) -> None:
    with running("train", "corpus.txt", *ENDLESS, program=warm, cwd=directory) as process:
        read_to_evaluation(process)
        process.send_signal(signal.SIGTERM)
        process.communicate()
    error = one_line(charrnn("train", "corpus.txt", *ENDLESS))
    assert "has an unfinished run at step " in error
    assert error.endswith("add --resume to continue, --force to start again, or -o NAME to keep both\n")


def test_a_finished_run_can_be_resumed_with_the_same_or_a_larger_budget(finished: Path, charrnn: Charrnn) -> None:
    error = one_line(charrnn("train", "corpus.txt", *QUICK))
    assert "exists already; add --resume and a larger budget to continue training" in error
    unchanged = charrnn("train", "corpus.txt", *QUICK, "--resume")
    assert (unchanged.returncode, unchanged.stdout) == (0, b"checkpoints/corpus.safetensors\n")
    assert b"already finished at step 20; give a larger budget" in unchanged.stderr
    continued = charrnn("train", "corpus.txt", "--resume", "--steps", "30")
    assert continued.returncode == 0
    record = checkpoint.load(finished / "checkpoints" / "corpus.safetensors").training
    assert record.steps == 30
    assert record.changed == (
        "step 20: the budget is 30 steps instead of 20 steps; the learning-rate schedule is stretched",
    )
    facts = charrnn("info", "corpus").stdout.decode()
    assert "\nchanged     step 20: the budget is 30 steps" in facts
    assert "\nsimilar " in facts  # not: repeat


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--hidden", "17"), 2, "--hidden: cannot be 17, because the run started with 16"),
        (("--cell", "gru"), 2, "--cell: cannot be gru, because the run started with lstm"),
        (("--lr", "0.5"), 2, "--lr: cannot be 0.5"),
        (("--steps", "20"), 0, ""),
        (("--steps", "19"), 2, "--steps: cannot be 19, because the run has already taken 20 steps"),
        (("--force",), 2, "--resume: cannot be combined with --force"),
    ],
)
def test_resume_accepts_only_the_settings_of_the_run(
    finished: Path, charrnn: Charrnn, options: tuple[str, ...], code: int, message: str
) -> None:
    result = charrnn("train", "corpus.txt", "--resume", *options)
    assert result.returncode == code
    if code:
        assert message in one_line(result)


def test_another_text_of_the_same_name_is_rejected(finished: Path, charrnn: Charrnn) -> None:
    (finished / "corpus.txt").write_text(CORPUS + "!")
    assert "is not the text of this run: its SHA-256 is " in one_line(charrnn("train", "corpus.txt", "--resume"))


def test_the_training_text_is_never_overwritten(directory: Path, charrnn: Charrnn) -> None:
    (directory / "data.jsonl").write_text(CORPUS)
    for options, message in (
        ((), "data.jsonl: exists already"),
        (("--force",), "data.jsonl: is the text to train on"),
    ):
        assert message in one_line(charrnn("train", "data.jsonl", "-o", "./data", *QUICK, *options))
    assert (directory / "data.jsonl").read_text() == CORPUS


def test_resume_writes_a_missing_model_again(finished: Path, charrnn: Charrnn) -> None:
    model = finished / "checkpoints" / "corpus.safetensors"
    data = model.read_bytes()
    model.unlink()
    assert "is missing, though its run is finished; add --resume to write it again" in one_line(
        charrnn("train", "corpus.txt", *QUICK)
    )
    (finished / "copy.txt").write_text(CORPUS)
    assert charrnn("train", "copy.txt", "-o", "corpus", "--resume").returncode == 0
    assert model.read_bytes() == data


def test_resume_needs_a_run(directory: Path, charrnn: Charrnn) -> None:
    error = one_line(charrnn("train", "corpus.txt", "--resume"))
    assert error.endswith("has no run to resume; leave out --resume to start one\n")
    assert {path.name for path in directory.iterdir()} == {"corpus.txt"}


def test_a_training_state_cannot_be_sampled(finished: Path, charrnn: Charrnn) -> None:
    state = finished / "checkpoints" / "corpus.training.safetensors"
    os.utime(state, (2**31, 2**31))
    assert charrnn("sample", "-n", "5").returncode == 0  # the newest file is not a model
    assert "is the state of a training run, but not a charrnn model" in one_line(charrnn("sample", state))


# --from


def test_from_maps_the_vocabulary_by_character_and_reports_it(finished: Path, charrnn: Charrnn) -> None:
    (finished / "new.txt").write_text("äöü and the lazy dog\n" * 60)
    result = charrnn("train", "new.txt", "--from", "corpus", "--steps", "5", *EXACT)
    assert result.returncode == 0
    assert b"shared characters, 3 new, " in result.stderr
    old, new = (checkpoint.load(finished / "checkpoints" / f"{name}.safetensors") for name in ("corpus", "new"))
    assert new.vocabulary.symbols == old.vocabulary.symbols + "äöü"
    assert (new.model_config.hidden, new.model_config.layers) == (old.model_config.hidden, old.model_config.layers)
    assert new.training.from_.model == "corpus"


def test_freeze_vocabulary_rejects_and_names_new_characters(finished: Path, charrnn: Charrnn) -> None:
    (finished / "new.txt").write_text("äöü and the lazy dog\n" * 60)
    error = one_line(charrnn("train", "new.txt", "--from", "corpus", "--freeze-vocabulary"))
    assert "never saw 'ä' (U+00E4 LATIN SMALL LETTER A WITH DIAERESIS), " in error
    (finished / "new.txt").write_text("the lazy dog\n" * 60)
    frozen = charrnn("train", "new.txt", "--from", "corpus", "--freeze-vocabulary", "--steps", "5", *EXACT)
    assert frozen.returncode == 0
    error = one_line(charrnn("train", "new.txt", "--from", "corpus", "--hidden", "99", "-o", "other"))
    assert "--hidden: 99 cannot be combined with --from corpus, which has 16; leave it out" in error


def test_a_run_from_a_model_is_resumed_exactly(finished: Path, charrnn: Charrnn, warm: list[str]) -> None:
    (finished / "new.txt").write_text("äöü and the lazy dog\n" * 60)
    arguments = ("train", "new.txt", "--from", "corpus", *NETWORK, "--steps", "600", "--patience", "0")
    assert charrnn(*arguments, "-o", "uninterrupted").returncode == 0
    with running(*arguments, "-o", "interrupted", program=warm, cwd=finished) as process:
        read_to_evaluation(process)
        process.send_signal(signal.SIGINT)
        process.communicate()
    assert process.returncode == 130
    assert charrnn("train", "new.txt", "-o", "interrupted", "--resume").returncode == 0
    uninterrupted, interrupted = (
        (finished / "checkpoints" / f"{name}.safetensors").read_bytes() for name in ("uninterrupted", "interrupted")
    )
    assert uninterrupted == interrupted


def test_an_unavailable_engine_is_reported_with_an_alternative(
    charrnn: Charrnn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "corpus.txt").write_text(CORPUS)
    options = [*QUICK[: QUICK.index("--engine")], "--steps", "4"]
    assert charrnn("train", "corpus.txt", *options, "--engine", "native").returncode == 0
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "charrnn.rnn.recurrence", None)  # as if llvmlite were missing
        result = charrnn("train", "corpus.txt", "--resume", "--steps", "6")
        assert result.returncode == 1
        last_line = result.stderr.decode().splitlines()[-1]
        assert last_line.startswith("charrnn: --engine: native is not available here (")
        assert result.stderr.endswith(b"; add --engine torch\n")
        assert charrnn("train", "corpus.txt", "--resume", "--steps", "6", "--engine", "torch").returncode == 0


def test_a_run_from_a_machine_with_a_gpu_names_the_option_to_resume_it(finished: Path, charrnn: Charrnn) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has the device")
    state = finished / "checkpoints" / "corpus.training.safetensors"
    saved = run_state.read(state)
    plan = replace(saved.run.plan, train_config=replace(saved.run.plan.train_config, device="cuda"))
    state.write_bytes(run_state.to_bytes(replace(saved, run=replace(saved.run, plan=plan))))
    error = charrnn("train", "corpus.txt", "--resume", "--steps", "30").stderr.decode().splitlines()[-1]
    assert error == "charrnn: --device: torch finds no cuda device; add --device cpu"
    assert charrnn("train", "corpus.txt", "--resume", "--steps", "30", "--device", "cpu").returncode == 0


def test_a_precision_that_this_machine_lacks_is_named_on_resume(
    finished: Path, charrnn: Charrnn, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(trainer: Trainer) -> None:
        raise RuntimeError("could not create a primitive descriptor")

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "try_layers", fail)
        error = charrnn("train", "corpus.txt", "--resume", "--steps", "30").stderr.decode().splitlines()[-1]
    reason = "fp32 is not available here (could not create a primitive descriptor)"
    assert error == f"charrnn: --precision: {reason}; resume the run on another machine"
    assert charrnn("train", "corpus.txt", "--resume", "--steps", "30").returncode == 0


def test_a_senseless_state_with_a_valid_digest_is_replaced_by_the_one_before_it(
    directory: Path, charrnn: Charrnn
) -> None:
    assert charrnn("train", "corpus.txt", *QUICK).returncode == 0
    state = directory / "checkpoints" / "corpus.training.safetensors"
    assert Path(f"{state}.old").exists()
    saved = run_state.read(state)
    current = replace(saved.current, progress=replace(saved.current.progress, seconds=-5.0))
    state.write_bytes(run_state.to_bytes(replace(saved, current=current)))
    result = charrnn("train", "corpus.txt", "--resume", "--steps", "30")
    assert result.returncode == 0
    assert (
        b"does not describe a run: current.seconds: invalid value -5.0; resuming from the state saved before it"
        in (result.stderr)
    )


@pytest.mark.parametrize("quiet", [(), ("--quiet",)])
def test_damaged_cached_ids_are_reported_unless_quiet_and_the_run_is_resumed_exactly(
    directory: Path, charrnn: Charrnn, quiet: tuple[str, ...]
) -> None:
    options = (*NETWORK, "--cache", "ids")
    assert charrnn("train", "corpus.txt", *options, "--steps", "12", "-o", "whole").returncode == 0
    assert charrnn("train", "corpus.txt", *options, "--steps", "12", "-o", "resumed").returncode == 0
    (path,) = (directory / "ids").glob("corpus-*.ids")
    path.write_bytes(path.read_bytes().replace(b"\x01", b"\x00"))
    results = [
        charrnn("train", "corpus.txt", "--resume", "--cache", "ids", "--steps", "20", "-o", name, *quiet)
        for name in ("whole", "resumed")
    ]
    assert [result.returncode for result in results] == [0, 0]
    notices = [result.stderr.count(b".ids: is damaged (") for result in results]
    assert notices == ([0, 0] if quiet else [1, 0])  # the second run finds the repaired file
    whole, resumed = (directory / "checkpoints" / f"{name}.safetensors" for name in ("whole", "resumed"))
    assert whole.read_bytes() == resumed.read_bytes()


def test_damaged_compiled_code_is_reported_and_replaced(
    directory: Path, charrnn_process: Charrnn, tmp_path: Path
) -> None:
    arguments = ("sample", "./tiny.safetensors", "-n", "20000", "--seed", "1")
    checkpoint.save(directory / "tiny.safetensors", make_checkpoint())
    objects = {"CHARRNN_CACHE": str(tmp_path / "objects")}
    expected = charrnn_process(*arguments, env=objects).stdout
    (path,) = (tmp_path / "objects").iterdir()
    path.write_bytes(b"")
    result = charrnn_process(*arguments, env=objects)
    assert (result.returncode, result.stdout) == (0, expected)
    assert f"charrnn: {path}: is damaged and not used; it is written again\n".encode() in result.stderr
    assert b"damaged" not in charrnn_process(*arguments, env=objects).stderr


@pytest.mark.parametrize("name", ["corpus.safetensors", "corpus.jsonl"])
def test_resume_does_not_replace_other_files(finished: Path, charrnn: Charrnn, name: str) -> None:
    (finished / "checkpoints" / name).write_text("my thesis")
    error = one_line(charrnn("train", "corpus.txt", "--resume"))
    assert f"checkpoints/{name}: exists, but is not " in error
    assert (finished / "checkpoints" / name).read_text() == "my thesis"


def test_the_backup_of_a_run_is_not_its_text(finished: Path, charrnn: Charrnn) -> None:
    backup = finished / "checkpoints" / "corpus.training.safetensors.old"
    result = charrnn("train", str(backup), "--unit", "byte", "-o", "corpus", "--force", *QUICK)
    assert "is the text to train on" in one_line(result)
    assert backup.exists()


def test_a_cache_that_cannot_be_written_is_reported(directory: Path, charrnn: Charrnn) -> None:
    (directory / "file").touch()
    result = charrnn("train", "corpus.txt", "--cache", "file/ids", *QUICK)
    assert result.returncode == 0
    assert b"charrnn: file/ids: cannot be written (not a directory), so the encoded text is not cached\n" in (
        result.stderr
    )


@pytest.mark.parametrize(
    "arguments",
    ["train l.txt", "train l.txt -o k", "corpus check l.txt", "train corpus.txt -o l.txt/k",
     "train corpus.txt -o ./m", "train corpus.txt -o ./m --resume",
     "info ./m.safetensors", "log ./m.safetensors", "score m l.txt"],
)  # fmt: skip
def test_a_loop_of_symbolic_links_is_a_one_line_error(directory: Path, charrnn: Charrnn, arguments: str) -> None:
    for name in ("l.txt", "m.safetensors"):
        (directory / name).symlink_to(name)
    result = charrnn(*arguments.split())
    assert result.returncode == 1
    one_line(result)
