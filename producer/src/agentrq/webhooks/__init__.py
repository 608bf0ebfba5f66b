"""Delivers the feed to HTTP endpoints: `agentrq deliver`. Standard library only.

Owns endpoints, signatures, attempts and what is given up on. Does not own what happens (agentrq.wire.feed).
"""
