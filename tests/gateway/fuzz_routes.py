"""Fuzzes a real gateway from its OpenAPI document, by schemathesis: ``python -m tests.gateway.fuzz_routes [EXAMPLES]``.

Nothing that is sent may bring an answer of 500 or more, or a traceback in the gateway's log.
Streams are closed after a second, so that their requests end.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from agentrq import AgentClient
from agentrq.embedded.server_process import ServerProcess
from tests.gateway.gateway_process import running

SETTINGS = {
    "AGENTRQ_GATEWAY_MAX_STREAM_S": "1",
    "AGENTRQ_GATEWAY_COMMANDS_PER_MINUTE": "1000000",
    "AGENTRQ_GATEWAY_MAX_STREAMS_PER_CALLER": "1000",
}


KNOWN = '[parameters]\n"path.session_id" = "known"\n'
"""Half of the requests are about a session that is there."""


def fuzz(address: str, directory: Path, examples: str, *more: str) -> int:
    command = [
        sys.executable, "-m", "schemathesis.cli", "run", f"{address}/openapi.json",
        "--checks", "not_a_server_error", "--phases", "coverage,fuzzing", "--max-examples", examples,
        "--request-timeout", "30", "--generation-database", "none", "--no-color", *more,
    ]  # fmt: skip
    return subprocess.run(command, cwd=directory, check=False).returncode


def main() -> int:
    examples = sys.argv[1] if len(sys.argv) > 1 else "25"
    with tempfile.TemporaryDirectory() as name, ServerProcess(Path(name) / "valkey") as server:
        directory = Path(name)
        with running(redis_url=server.url, **SETTINGS) as (_, address):
            failed = fuzz(address, directory, examples)
            with AgentClient.from_url(server.url) as client:
                client.start("demo", "x", "known")
            (directory / "schemathesis.toml").write_text(KNOWN)
            return failed or fuzz(address, directory, examples, "--exclude-method", "DELETE")


if __name__ == "__main__":
    sys.exit(main())
