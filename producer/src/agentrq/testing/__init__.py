"""A kit for the tests of backends: clients on fakeredis, and an agent that says what a test wrote.

Owns what takes the place of Redis and of a worker in a test; needs the extra ``agentrq[testing]``. Nothing of agentrq
imports it. docs/how-to/test-your-backend.md shows its use.
"""
