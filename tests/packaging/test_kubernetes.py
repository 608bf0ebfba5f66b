"""The Kubernetes base in ``deploy/kubernetes``, checked offline: by the API's schemas, and for what it promises."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]  # it brings no types
import pytest
from docs.reference_tables import fleet_metrics_table, metrics_table
from ruamel.yaml import YAML

from agentrq import AgentClient, AsyncAgentClient
from agentrq_worker.settings import load
from agentrq_worker.worker import LAST_WRITE_S
from tests.packaging.conftest import ROOT
from tests.polling import wait_until
from tests.sessions import until
from tests.workers import Worker

BASE = ROOT / "deploy/kubernetes"
PROGRAM = BASE / "deletion_cost.py"
OLDEST = "1.28"
OTHERS = {"Kustomization", "ScaledObject"}
"""Kinds that are not the API's own."""


def objects() -> list[tuple[str, Any]]:
    """Every object of the base, with its file."""
    yaml = YAML(typ="safe")
    return [(path.name, found) for path in sorted(BASE.glob("*.yaml")) for found in yaml.load_all(path.read_text())]


def of_kind(kind: str) -> dict[str, Any]:
    return {found["metadata"]["name"]: found for _, found in objects() if found["kind"] == kind}


@pytest.fixture(scope="module")
def pod() -> Any:
    """The workers' pod."""
    return of_kind("Deployment")["agentrq-worker"]["spec"]["template"]["spec"]


@pytest.mark.parametrize(
    "found", [found for _, found in objects() if found["kind"] not in OTHERS], ids=lambda found: found["kind"]
)
@pytest.mark.parametrize("version", [OLDEST, None], ids=["oldest", "newest"])
def test_an_object_is_what_the_api_accepts(found: Any, version: str | None) -> None:
    kubernetes_validate.validate(found, version or kubernetes_validate.latest_version(), strict=True)


def test_a_misspelled_field_is_found() -> None:
    found = json.loads(json.dumps(of_kind("Deployment")["agentrq-worker"]))
    found["spec"]["template"]["spec"]["terminationGraceperiodSeconds"] = 1
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(found, OLDEST, strict=True)


def test_the_kustomization_names_every_file_and_no_other() -> None:
    (found,) = (found for name, found in objects() if name == "kustomization.yaml")
    files = {path.name for path in BASE.iterdir() if path.suffix == ".yaml"} - {"kustomization.yaml"}
    assert set(found["resources"]) == files
    assert {name for each in found["configMapGenerator"] for name in each["files"]} == {PROGRAM.name}
    images = {container["image"] for container in containers()}
    assert images == {each["name"] for each in found["images"]}


def containers() -> Iterator[Any]:
    for _, found in objects():
        spec = found.get("spec", {})
        template = spec.get("template") or spec.get("jobTemplate", {}).get("spec", {}).get("template")
        if template:
            yield from template["spec"]["containers"]


def test_every_container_can_do_little_harm() -> None:
    found = list(containers())
    assert len(found) == 3
    for container in found:
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"] is True
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert "memory" in container["resources"]["limits"]


def test_a_worker_has_the_time_to_drain(pod: Any) -> None:
    (container,) = pod["containers"]
    settings = load(None, {each["name"]: each["value"] for each in container["env"]})
    needed = settings.drain_s + settings.stop_grace_s + 2 + LAST_WRITE_S
    assert pod["terminationGracePeriodSeconds"] > needed
    assert settings.metrics_port == container["ports"][0]["containerPort"]
    assert settings.metrics_host != "127.0.0.1"
    assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"


def test_agents_have_no_account_of_the_cluster(pod: Any) -> None:
    assert pod["automountServiceAccountToken"] is False
    assert "serviceAccountName" not in pod


def test_the_scaler_keeps_slots_free(pod: Any) -> None:
    scaler = of_kind("ScaledObject")["agentrq-worker"]["spec"]
    assert scaler["scaleTargetRef"]["name"] in of_kind("Deployment")
    (trigger,) = scaler["triggers"]
    (slots,) = (each["value"] for each in pod["containers"][0]["env"] if each["name"] == "AGENTRQ_MAX_SESSIONS")
    assert int(trigger["metadata"]["threshold"]) < int(slots), "a full fleet is never taken for enough"
    assert scaler["cooldownPeriod"] >= load(None, {}).drain_s
    described = metrics_table() + fleet_metrics_table()
    names = re.findall(r"agentrq_\w+", trigger["metadata"]["query"])
    assert names
    assert [name for name in names if f"`{name}`" not in described] == []


# -- pod-deletion-cost, run for real against a server that listens as the API does


@pytest.fixture
def api() -> Iterator[tuple[str, list[tuple[str, str | None, Any]]]]:
    """The address of a server, and what it was asked: path, authorization, body."""
    asked: list[tuple[str, str | None, Any]] = []

    class Api(BaseHTTPRequestHandler):
        def do_PATCH(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append((self.path, self.headers["Authorization"], body))
            self.send_response(404 if "gone" in self.path else 200)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Api)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()


async def test_a_workers_pod_is_told_how_many_sessions_it_would_cost(
    client: AsyncAgentClient, redis_url: str, start_worker: Callable[..., Worker], tmp_path: Path, api: Any
) -> None:
    address, asked = api
    start_worker("--max-sessions", "5")
    for _ in range(2):
        await until(await client.start("demo", "/echo hi"), "idle")
    with AgentClient.from_url(redis_url) as watching:
        wait_until(lambda: [each.free for each in watching.fleet().workers] == [3])
        (worker,) = watching.fleet().workers
    (tmp_path / "token").write_text("secret")
    environment = {
        "AGENTRQ_REDIS_URL": redis_url, "KUBERNETES_API": address, "NAMESPACE": "agentrq",
        "SERVICE_ACCOUNT_DIR": str(tmp_path), "PATH": os.environ["PATH"],
    }  # fmt: skip
    done = subprocess.run([sys.executable, str(PROGRAM)], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert asked == [
        (
            f"/api/v1/namespaces/agentrq/pods/{worker.host}", "Bearer secret",
            {"metadata": {"annotations": {"controller.kubernetes.io/pod-deletion-cost": "2"}}},
        )
    ]  # fmt: skip


def test_the_role_may_do_no_more_than_the_program_does() -> None:
    (rule,) = of_kind("Role")["agentrq-deletion-cost"]["rules"]
    assert rule == {"apiGroups": [""], "resources": ["pods"], "verbs": ["patch"]}
    assert set(re.findall(r'method="(\w+)"', PROGRAM.read_text())) == {"PATCH"}
