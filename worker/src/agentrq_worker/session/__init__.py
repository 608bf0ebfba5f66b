"""One session on its worker: the agent's process, the conversation with it, and what they mean."""
