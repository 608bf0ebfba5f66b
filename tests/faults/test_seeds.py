"""The property over many seeds (harness.py): every reader's sequence is the written one, exactly.

``AGENTRQ_FAULT_SEED=n`` runs that seed alone, eight at once.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agentrq.embedded.server_process import ServerProcess
from tests.faults.chaos import storm
from tests.faults.harness import run_seeds
from tests.faults.mutants import CONTROL, MUTANTS, survives
from tests.faults.restarts import Restartable, kill_again_and_again

CHOSEN = os.environ.get("AGENTRQ_FAULT_SEED")


def _seeds(first: int, count: int) -> list[int]:
    return [int(CHOSEN)] if CHOSEN else list(range(first, first + count))


@pytest.mark.parametrize("first", [0] if CHOSEN else [0, 25])
async def test_no_event_is_lost_doubled_or_reordered_under_faults(tmp_path: Path, first: int) -> None:
    with ServerProcess(tmp_path) as server:
        seeds = _seeds(first, 25)
        results = await run_seeds(seeds, server, storm)
    assert len(results) == len(seeds)
    assert all(result.compared for result in results)
    assert sum(sum(result.faults.values()) for result in results) > len(seeds)


@pytest.mark.slow
@pytest.mark.parametrize("first", [5000])
async def test_no_event_is_lost_over_kills_of_the_server(tmp_path: Path, first: int) -> None:
    with Restartable(tmp_path, "--appendfsync", "always") as server:
        assert await run_seeds(_seeds(first, 8), server, kill_again_and_again)
        assert server.kills


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("first", range(0, 1000, 100))
async def test_no_event_is_lost_over_a_thousand_seeds(tmp_path: Path, first: int) -> None:
    with ServerProcess(tmp_path) as server:
        assert len(await run_seeds(range(first, first + 100), server, storm)) == 100


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("first", range(5100, 5300, 100))
async def test_no_event_is_lost_over_many_kills_of_the_server(tmp_path: Path, first: int) -> None:
    with Restartable(tmp_path, "--appendfsync", "always") as server:
        assert len(await run_seeds(range(first, first + 100), server, kill_again_and_again)) == 100


# A run that was found out is torn down in the middle of everything, connections that are being made included.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("mutant", MUTANTS)
async def test_the_harness_finds_each_mutant(tmp_path: Path, mutant: str) -> None:
    assert ("seed" in await survives(mutant, tmp_path)) is (mutant != CONTROL)
