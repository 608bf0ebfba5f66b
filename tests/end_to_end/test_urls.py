"""The way into Redis: TLS, and a password that is in no log, no error and no list of processes."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import redis

from agentrq import AsyncAgentClient
from agentrq.connection import hide_arguments, masked
from agentrq.embedded.server_process import ServerProcess
from tests.attacks import attack
from tests.sessions import contents, until
from tests.workers import Worker, read_of_process

PASSWORD = "hunter2-of-redis"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server that asks for a password."""
    with ServerProcess(tmp_path_factory.mktemp("password")) as server:
        with redis.Redis.from_url(server.url) as admin:
            admin.execute_command("ACL", "SETUSER", "someone", "on", f">{PASSWORD}", "~*", "&*", "+@all")
            admin.execute_command("ACL", "SETUSER", "default", "off")
        yield server


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and its certificate, for localhost, in one file."""
    place = tmp_path_factory.mktemp("tls")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", "key.pem", "-out", "cert.pem"],
        cwd=place, check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    (place / "both.pem").write_text((place / "key.pem").read_text() + (place / "cert.pem").read_text())
    return place / "both.pem"


@pytest.fixture
def tls_port(guarded: ServerProcess, certificate: Path) -> Iterator[int]:
    """TLS in front of that server."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    listening = socket.create_server(("127.0.0.1", 0))

    def copy(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def serve(plain: socket.socket) -> None:
        behind = socket.socket(socket.AF_UNIX)
        with suppress(OSError), behind, context.wrap_socket(plain, server_side=True) as inside:
            behind.connect(str(guarded.path))
            back = threading.Thread(target=copy, args=(behind, inside), daemon=True)
            back.start()
            copy(inside, behind)
            back.join()

    def accept() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listening.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    yield listening.getsockname()[1]
    listening.close()


@attack(
    "Redis by TLS: an attacker in between with another certificate",
    "no connection, one line, no password sent or shown",
)
@pytest.mark.both_loops
async def test_a_session_runs_over_tls(tls_port: int, certificate: Path, config: Path, guarded: ServerProcess) -> None:
    trusted = certificate.with_name("cert.pem")
    url = f"rediss://someone:{PASSWORD}@localhost:{tls_port}/0?ssl_ca_certs={trusted}"
    worker = Worker(None, config, ("--name", "w"), os.environ | {"AGENTRQ_REDIS_URL": url})
    try:
        worker.wait_ready()
        async with AsyncAgentClient.from_url(url) as client:
            session = await client.start("demo", "/echo over TLS")
            await until(session, "idle")
            await session.stop()
            await session.wait(20)
            texts = contents([event async for event in session.events()], "text")
            assert [content.text for content in texts] == ["over TLS"]
        assert worker.terminate() == 0
    finally:
        worker.close()
    assert PASSWORD not in "".join(worker.log)
    for module in ("agentrq_worker", "agentrq"):
        done = subprocess.run(
            [sys.executable, "-m", module, *(["list"] if module == "agentrq" else [])],
            env=os.environ | {"AGENTRQ_REDIS_URL": url.partition("?")[0]}, capture_output=True, text=True, timeout=60,
            check=False,
        )  # fmt: skip
        assert done.returncode == 4
        assert "certificate verify failed" in done.stderr
        assert PASSWORD not in done.stderr + done.stdout
        assert done.stderr.count("\n") == 1


@attack(
    "reading the password of Redis in the list of processes (`ps`), in any error, in the log",
    "`***`: overwritten among the arguments too (there from the program's start until it has read them)",
)
async def test_the_password_is_shown_nowhere(guarded: ServerProcess, config: Path, tmp_path: Path) -> None:
    url = f"unix://someone:{PASSWORD}@{guarded.path}"
    worker = Worker(url, config, ("--name", "w"), os.environ)  # by --redis, as an argument
    try:
        worker.wait_ready()
        async with AsyncAgentClient.from_url(url) as client:
            session = await client.start("demo", "/echo hi")
            await until(session, "idle")
            mine = psutil.Process(worker.pid)
            for process in (mine, *mine.children(recursive=True)):  # the guardian's and the runner's too
                shown = read_of_process(process.pid, "cmdline")
                assert PASSWORD.encode() not in shown
                assert PASSWORD.encode() not in read_of_process(process.pid, "environ"), shown
            await session.stop()
            await session.wait(20)
            assert PASSWORD.encode() not in read_of_process(worker.pid, "cmdline")
    finally:
        worker.close()
    assert PASSWORD not in "".join(worker.log)


@pytest.mark.slow
@pytest.mark.parametrize("words", [["agentrq_worker"], ["agentrq", "attach", "s"]], ids=" ".join)
@pytest.mark.parametrize(
    "wrong",
    [
        "unix://someone:{}-wrong@{}", "redis://someone:{}@127.0.0.1:1/0", "redis://someone:{}@no-such-host.invalid/0",
        "redis://someone:{}@[::1", "ftp://x:{}@h", "redis://h:{}/0", "sentinel://:{}@127.0.0.1:1/service",
        "redis://h/0?password={}&db=x",
    ],
)  # fmt: skip
def test_the_password_is_in_no_error(guarded: ServerProcess, wrong: str, words: list[str]) -> None:
    url = wrong.format(PASSWORD, guarded.path)
    done = subprocess.run(
        [sys.executable, "-m", *words, "--redis", url], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode in (2, 4), done.stderr
    assert PASSWORD not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_only_the_url_is_hidden_from_the_process_list(tmp_path: Path) -> None:
    code = """
import sys
from agentrq.connection import hide_arguments
url = sys.argv[1]
print(hide_arguments(url), hide_arguments("redis://no:pass" + "word@here"), hide_arguments("redis://h"))
print(open("/proc/self/cmdline").read().split("\\0")[3:-1])
"""
    url = "redis://user:secret-word@host:6379/0"
    done = subprocess.run(
        [sys.executable, "-c", code, url, "--x"], capture_output=True, text=True, check=True, timeout=60
    )
    answers, shown = done.stdout.splitlines()
    assert answers == "True False False"
    assert shown == str([masked(url).ljust(len(url), "*"), "--x"])
    assert not hide_arguments("")
