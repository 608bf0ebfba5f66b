"""A kit for the tests of backends: clients on fakeredis, and an agent that says what a test wrote.

Owns what takes the place of Redis and of a worker in a test; needs the extra ``agentrq[testing]``. Nothing of agentrq
imports it. docs/how-to/test-your-backend.md shows its use.
"""

from importlib.util import find_spec

if not (find_spec("fakeredis") and find_spec("lupa")):  # fakeredis knows scripts only where lupa is
    raise ModuleNotFoundError("agentrq.testing needs fakeredis with lupa: pip install 'agentrq[testing]'")
