"""The HTTP gateway of agentrq: sessions for browsers, and for backends in any language.

It owns HTTP: routes, server-sent events, who may do what. What a session is, and every access to Redis, is the
client's (the distribution `agentrq`).
"""
