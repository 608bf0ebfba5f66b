"""The page: static files, and the headers that keep what agents print from becoming anything but text.

A gateway serves `directory()` below ``page/``, and its ``index.html`` at ``/``, all with `security_headers`.
"""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from pathlib import Path


def directory() -> Path:
    """Where the files are."""
    return Path(__file__).parent / "static"


@cache
def security_headers() -> dict[str, str]:
    """The headers of every answer with a file. The import map is the only inline script: its hash names it."""
    (import_map,) = re.findall(
        rb'<script type="importmap">(.*?)</script>', (directory() / "index.html").read_bytes(), re.S
    )
    digest = base64.b64encode(hashlib.sha256(import_map).digest()).decode()
    policy = {
        "default-src": "'self'",
        "script-src": f"'self' 'sha256-{digest}'",
        "style-src": "'self'",
        "img-src": "'self'",
        "object-src": "'none'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",
        "trusted-types": "'none'",
    }
    return {
        "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
    }
