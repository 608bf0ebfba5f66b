"""Runs a command where no agent can reach anything real: a network namespace with only loopback, a bare environment.

``python -m tests.agents.isolated COMMAND…``. The home is a temporary folder; nothing of the caller's environment is
kept but where programs are. Exits with the command's exit code, 77 where the system has no namespaces for us.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile

IMPOSSIBLE = 77
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1  # netdevice(7)
_OUTSIDE = ("192.0.2.1", 9)  # RFC 5737: nobody's address


def is_isolated() -> bool:
    """True where there is no way out: a datagram socket finds no route (it sends nothing)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(_OUTSIDE)
        except OSError:
            return True
    return False


def why_not() -> str | None:
    """Why this machine cannot isolate; None if it can."""
    if shutil.which("unshare") is None:
        return "there is no unshare (util-linux)"
    done = subprocess.run([*_unshare(), "true"], capture_output=True, text=True, check=False)
    return None if done.returncode == 0 else done.stderr.strip() or "unshare failed"


def _unshare() -> list[str]:
    return ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--net", "--map-root-user"]


def _loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sh14x", b"lo", 0)
        flags = struct.unpack("16sh14x", fcntl.ioctl(any_socket, _SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | _IFF_UP))


def _inside(command: list[str]) -> int:
    _loopback_up()
    if not is_isolated():
        print("the namespace has a way out", file=sys.stderr)
        return IMPOSSIBLE
    places = [os.path.dirname(sys.executable)]
    if node := shutil.which("node"):
        places.append(os.path.dirname(node))
    with tempfile.TemporaryDirectory(prefix="agents-") as home:
        environment = {
            "PATH": os.pathsep.join([*places, "/usr/local/bin", "/usr/bin", "/bin"]),
            "HOME": home,
            "TMPDIR": home,
            "LANG": "C.UTF-8",
            "TERM": "dumb",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        return subprocess.run(command, env=environment, check=False).returncode


if __name__ == "__main__":
    if sys.argv[1] == "--inside":
        sys.exit(_inside(sys.argv[2:]))
    if (reason := why_not()) is not None:
        print(f"no isolation: {reason}", file=sys.stderr)
        sys.exit(IMPOSSIBLE)
    os.execvp("unshare", [*_unshare(), sys.executable, "-m", "tests.agents.isolated", "--inside", *sys.argv[1:]])
