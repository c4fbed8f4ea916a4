"""Failing calls: a command ends with one line, loses no file, leaves nothing, and works the next time."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cli.faults import CASES
from tests.conftest import environment
from tests.warm import PYTHON

FAULTS = Path(__file__).with_name("faults.py")

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")


def inject(warm: list[str], *arguments: str) -> list[dict[str, Any]]:
    """Return the reports of ``faults.py``, run in a process without other threads."""
    command = [*warm, PYTHON, FAULTS, *arguments]
    result = subprocess.run(command, env=environment(), stdout=subprocess.PIPE, timeout=3000, check=True)
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_some_failing_calls_are_reported_and_lose_nothing(warm: list[str]) -> None:
    seed = int(os.environ.get("FUZZ_SEED", "0"))
    names = random.Random(seed).sample(sorted(CASES), 4)
    reports = inject(warm, "--sample", "15", str(seed), *(word for name in names for word in ("--only", name)))
    assert {report["case"]: report["problems"] for report in reports} == {name: [] for name in names}, seed


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_every_failing_call_is_reported_and_loses_nothing(warm: list[str], name: str) -> None:
    (report,) = inject(warm, "--only", name)
    assert report["problems"] == []
    assert report["calls"] > 0
