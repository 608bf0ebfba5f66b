"""The JavaScript client, by node's own test runner, against a gateway that misbehaves by script."""

from __future__ import annotations

import gzip
import re
import subprocess
from pathlib import Path

import pytest

from tests.clients.node import CLIENT, needs_node, run_node
from tests.clients.scripted_gateway import ScriptedGateway
from tests.npm_packages import install


@needs_node
def test_the_client_bears_cuts_delays_repetitions_and_refusals() -> None:
    with ScriptedGateway() as gateway:
        run_node("--test", CLIENT / "tests" / "client.test.js", AGENTRQ_TEST_GATEWAY=gateway.url)


def test_the_client_stays_under_8_kb_and_needs_nothing_else() -> None:
    sources = {path.name: path.read_bytes() for path in (CLIENT / "src").glob("*.js")}
    assert len(gzip.compress(b"".join(sources.values()), 9)) < 8192
    imported = re.findall(rb'^(?:import|export) .*? from "(.*?)"', b"\n".join(sources.values()), re.MULTILINE)
    assert {name.decode().removeprefix("./") for name in imported} <= set(sources)
    assert imported


@needs_node
@pytest.mark.slow
def test_the_types_are_sound_and_those_in_the_tree_are_made_from_the_sources(tmp_path: Path) -> None:
    compiler = install(CLIENT) / ".bin" / "tsc"
    done = subprocess.run(
        [compiler, "--project", CLIENT, "--outDir", tmp_path], capture_output=True, text=True, check=False, timeout=100
    )
    assert done.returncode == 0, done.stdout
    made = {path.name: path.read_text() for path in tmp_path.glob("*.d.ts")}
    kept = {path.name: path.read_text() for path in (CLIENT / "types").glob("*.d.ts") if path.name != "wire.d.ts"}
    assert made == kept, "npx tsc --project clients/js writes them anew"
