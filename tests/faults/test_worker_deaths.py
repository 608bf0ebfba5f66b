"""Workers die, freeze, lose the network and are restarted at random points while their sessions run turns."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.deaths import LIGHT_PROVIDER, roll, run


@pytest.fixture
def light(config: Path) -> Path:
    with config.open("a") as file:
        file.write(LIGHT_PROVIDER)
    return config


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
async def test_sessions_survive_seeded_deaths_of_workers(redis_url: str, light: Path, seed: int) -> None:
    deaths = await run(redis_url, light, seed, sessions=6, turns=5)
    assert deaths.faults


@pytest.mark.slow
async def test_sessions_survive_a_rolling_restart(redis_url: str, light: Path) -> None:
    deaths = await roll(redis_url, light, 0, sessions=8, turns=3)
    assert deaths.cut_turns == 0
    assert deaths.moved == 8


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", range(100, 150))
async def test_sessions_survive_many_seeded_deaths_of_workers(redis_url: str, light: Path, seed: int) -> None:
    deaths = await run(redis_url, light, seed, sessions=10, turns=10)
    assert deaths.faults
