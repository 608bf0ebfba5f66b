"""The HTTP gateway of agentrq: sessions for browsers, and for backends in any language.

It owns HTTP: routes, server-sent events, who may do what. What a session is, and every access to Redis, is the
client's (the distribution `agentrq`).
"""

from agentrq_gateway.app import Gateway
from agentrq_gateway.auth.grant import ACTIONS, Grant
from agentrq_gateway.auth.jwt_auth import JWTAuth
from agentrq_gateway.settings import Settings

__all__ = ["ACTIONS", "Gateway", "Grant", "JWTAuth", "Settings"]
