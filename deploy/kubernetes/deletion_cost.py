"""Tells Kubernetes which worker to end first: annotates each worker's pod with how many sessions it hosts.

A pod's name is its host name, which workers tell. Runs once; deletion-cost.yaml runs it each minute.
"""

from __future__ import annotations

import json
import os
import ssl
import sys
import urllib.error
import urllib.request
from pathlib import Path

from agentrq import AgentClient

ANNOTATION = "controller.kubernetes.io/pod-deletion-cost"
ACCOUNT = Path(os.environ.get("SERVICE_ACCOUNT_DIR", "/var/run/secrets/kubernetes.io/serviceaccount"))


def annotate(pod: str, cost: int) -> None:
    """Set one pod's deletion cost. Raises OSError."""
    server = os.environ.get("KUBERNETES_API", "https://kubernetes.default.svc")
    address = f"{server}/api/v1/namespaces/{os.environ['NAMESPACE']}/pods/{pod}"
    patch = {"metadata": {"annotations": {ANNOTATION: str(cost)}}}
    headers = {
        "Authorization": f"Bearer {(ACCOUNT / 'token').read_text()}",
        "Content-Type": "application/merge-patch+json",
    }
    request = urllib.request.Request(address, json.dumps(patch).encode(), headers, method="PATCH")  # noqa: S310 - ours
    context = ssl.create_default_context(cafile=ACCOUNT / "ca.crt") if server.startswith("https") else None
    with urllib.request.urlopen(request, timeout=10, context=context):  # noqa: S310 - the address is the cluster's
        pass


def main() -> int:
    """Annotate all workers' pods; 1 if one of them could not be."""
    failed = 0
    with AgentClient.from_url(os.environ["AGENTRQ_REDIS_URL"]) as client:
        for worker in client.fleet().workers:
            if not worker.alive or worker.host is None or worker.slots is None or worker.free is None:
                continue
            used = 0 if worker.draining else worker.slots - worker.free
            try:
                annotate(worker.host, used)
            except urllib.error.HTTPError as error:
                if error.code != 404:  # a worker that is no pod of this namespace, or gone meanwhile
                    sys.stderr.write(f"{worker.host}: {error}\n")
                    failed = 1
            except OSError as error:
                sys.stderr.write(f"{worker.host}: {error}\n")
                failed = 1
    return failed


if __name__ == "__main__":
    sys.exit(main())
