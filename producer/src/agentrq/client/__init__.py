"""The Python client: `AgentClient` and `AsyncAgentClient`, two thin shells over operations.py and subscription.py.

Owns the running of operations on a Redis client and the waiting of a reader; no rule of the product.
"""

from agentrq.client.asyncio_client import AsyncAgentClient, AsyncSession
from agentrq.client.sync_client import AgentClient, Session

__all__ = ["AgentClient", "AsyncAgentClient", "AsyncSession", "Session"]
