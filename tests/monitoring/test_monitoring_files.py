"""The dashboard and the alert rules in ``deploy``: they name what there is, fire when they should, and show data.

promtool and prometheus are those of Debian's package ``prometheus``; where they are not on PATH what needs them is
skipped, and says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest
from docs.reference_tables import fleet_metrics_table, metrics_table

from agentrq import AsyncAgentClient
from tests.packaging.conftest import ROOT
from tests.polling import wait_until
from tests.producer.command_line import COMMAND
from tests.rq_checks import eventually
from tests.sessions import asked, until
from tests.workers import Worker, free_port

DASHBOARD = json.loads((ROOT / "deploy/grafana-dashboard.json").read_text())
RULES = (ROOT / "deploy/prometheus-rules.yml").read_text()
PANELS = [(panel["title"], target["expr"]) for panel in DASHBOARD["panels"] for target in panel.get("targets", ())]
NAMES = sorted(set(re.findall(r"\bagentrq_\w+", RULES + " ".join(expression for _, expression in PANELS))))
SUFFIX = re.compile("_(bucket|sum|count)$")
needs_prometheus = pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool (apt install prometheus)")


def test_every_metric_that_is_named_is_documented() -> None:
    table = metrics_table() + fleet_metrics_table()
    described = {line.split("`")[1] for line in table.splitlines() if line.startswith("| `")}
    assert len(NAMES) > 30
    assert [name for name in NAMES if SUFFIX.sub("", name) not in described] == []


def test_every_metric_that_is_documented_is_on_the_dashboard() -> None:
    table = metrics_table() + fleet_metrics_table()
    described = {line.split("`")[1] for line in table.splitlines() if line.startswith("| `")}
    shown = {SUFFIX.sub("", name) for name in NAMES}
    assert sorted(described - shown) == ["agentrq_fleet_read_seconds", "agentrq_max_sessions", "agentrq_sessions"]


def test_the_panels_stand_beside_each_other() -> None:
    places = [tuple(panel["gridPos"].values()) for panel in DASHBOARD["panels"]]
    for number, (x, y, w, h) in enumerate(places):
        assert x + w <= 24
        for other_x, other_y, other_w, other_h in places[number + 1 :]:
            assert x + w <= other_x or other_x + other_w <= x or y + h <= other_y or other_y + other_h <= y
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)


@needs_prometheus
@pytest.mark.parametrize(
    "words", [("check", "rules", "deploy/prometheus-rules.yml"), ("test", "rules", "tests/monitoring/rules_test.yml")]
)
def test_promtool_accepts_the_rules_and_each_fires_in_its_case(words: tuple[str, ...]) -> None:
    done = subprocess.run(["promtool", *words], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_rule_has_a_case_in_which_it_fires() -> None:
    fires = re.findall(r'alertname[:=] ?"?(\w+)', (ROOT / "tests/monitoring/rules_test.yml").read_text())
    assert set(re.findall(r"- alert: (\w+)", RULES)) == set(fires)


# -- a scripted day


@pytest.fixture(autouse=True)
def spender(config: Path) -> None:
    """A provider whose turns cost money."""
    program = ROOT / "tests/fakes/spending_runner.py"
    with config.open("a") as file:
        file.write(f'\n[providers.spender]\ncommand = ["{sys.executable}", "{program}"]\n')


@contextlib.contextmanager
def fleet_exporter(redis_url: str, port: int) -> Iterator[subprocess.Popen[str]]:
    """``agentrq metrics --port``."""
    process = subprocess.Popen([*COMMAND, "metrics", "--redis", redis_url, "--port", str(port)], text=True)
    try:
        yield process
    finally:
        process.terminate()
        assert process.wait(30) == 0


async def live_a_day(client: AsyncAgentClient, start_worker: Callable[..., Worker], ports: list[int]) -> None:
    """Whole, cut, failed and interrupted turns, tools, answers, a recovery: on three workers."""
    lost = start_worker("--metrics-port", str(ports[0]), "--name", "lost")
    recovered = await client.start("demo", "/sleep 60")
    await until(recovered, "running")
    workers = [start_worker("--metrics-port", str(port), "--name", f"w{port}") for port in ports[1:]]
    assert len(workers) == 2
    lost.kill()
    await until(recovered, "idle")
    start_worker("--metrics-port", str(ports[0]), "--name", "again")
    asking = await client.start("demo", "What is here?", cwd="/tmp", approvals="ask")
    request = await asked(asking)
    assert request.type == "approval_request"
    await asking.answer(request.content.request_id, "allow", wait=True)
    idle = await until(asking, "idle")
    await asking.prompt("/crash 3", wait=True)
    await until(asking, "error", idle)
    spending = await client.start("spender", "go")
    await until(spending, "idle")
    waiting = await client.start("demo", "What is here?", cwd="/tmp", approvals="ask")
    await asked(waiting)


def figures(port: int) -> str:
    """A scrape's text; empty while nobody answers."""
    try:
        with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as answer:
            return str(answer.read().decode())
    except (URLError, ConnectionError):
        return ""


def samples(text: str) -> set[str]:
    """The names that have a sample."""
    return {re.split(r"[{ ]", line, maxsplit=1)[0] for line in text.splitlines() if line and not line.startswith("#")}


@pytest.mark.slow
async def test_every_metric_that_is_named_is_in_a_scrape_after_a_scripted_day(
    client: AsyncAgentClient, start_worker: Callable[..., Worker], redis_url: str
) -> None:
    ports, fleet = [free_port() for _ in range(3)], free_port()
    with fleet_exporter(redis_url, fleet):
        await live_a_day(client, start_worker, ports)

        def missing() -> set[str]:
            return set(NAMES) - samples("".join(figures(port) for port in (*ports, fleet)))

        with contextlib.suppress(TimeoutError):
            await eventually(lambda: not missing(), "a sample of every metric")
        assert missing() == set()
        text = figures(fleet)
        assert 'agentrq_fleet_sessions{provider="demo",status="waiting"} 1.0' in text
        assert "agentrq_fleet_workers 3.0" in text
        assert "agentrq_fleet_open_requests 1.0" in text
        await eventually(lambda: "agentrq_fleet_slots_free 297.0" in figures(fleet), "the workers' free slots")
        text = "".join(figures(port) for port in ports)
        assert 'agentrq_cost_usd_total{model="dear-1",provider="spender"} 0.25' in text
        assert 'agentrq_tokens_total{direction="input",model="dear-1",provider="spender"} 1000.0' in text


@pytest.mark.slow
@needs_prometheus
async def test_a_prometheus_that_scrapes_three_workers_has_data_for_every_panel(
    client: AsyncAgentClient, start_worker: Callable[..., Worker], redis_url: str, tmp_path: Path
) -> None:
    ports, fleet, own = [free_port() for _ in range(3)], free_port(), free_port()
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(ROOT / "deploy/prometheus-rules.yml")],
        "scrape_configs": [
            {"job_name": "agentrq", "static_configs": [{"targets": [f"127.0.0.1:{port}" for port in ports]}]},
            {"job_name": "agentrq-fleet", "static_configs": [{"targets": [f"127.0.0.1:{fleet}"]}]},
        ],
    }
    (tmp_path / "prometheus.yml").write_text(json.dumps(config))  # JSON is YAML
    words = [f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/data"]
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(
            ["prometheus", *words, f"--web.listen-address=127.0.0.1:{own}", "--log.level=warn"], stderr=log
        )

    def ask(path: str, **query: str) -> Any:
        with urlopen(f"http://127.0.0.1:{own}/api/v1/{path}?{urlencode(query)}", timeout=20) as answer:
            return json.load(answer)["data"]

    def empty() -> list[str]:
        """Panels whose query has no data yet."""
        with contextlib.suppress(URLError, ConnectionError):
            return [
                f"{title}: {expression}"
                for title, expression in PANELS
                if not ask("query", query=expression.replace("$__rate_interval", "5m"))["result"]
            ]
        return ["nobody answers"]

    try:
        with fleet_exporter(redis_url, fleet):
            await live_a_day(client, start_worker, ports)
            with contextlib.suppress(AssertionError):
                await asyncio.to_thread(wait_until, lambda: not empty(), 60)
            assert empty() == []
            assert len([rule for group in ask("rules")["groups"] for rule in group["rules"]]) == RULES.count("- alert:")
    finally:
        server.terminate()
        server.wait(30)
