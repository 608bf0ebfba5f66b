"""The settings of the provider ``probe``, whose runner executes each prompt as Python."""

from __future__ import annotations

import sys
from pathlib import Path

PROBE = f"""
[providers.probe]
command = ["{sys.executable}", "{Path(__file__).with_name("probe_runner.py")}"]
"""
