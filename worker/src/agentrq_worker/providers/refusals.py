"""The words by which a session is told that its agent cannot do something.

Owns one phrase for each thing that some agents support and others do not. Does not own which agent supports what
(registry.py), nor refusals for other reasons.
"""

from __future__ import annotations

from typing import Final

PHRASES: Final = {
    # options of a start
    "model": "choosing a model",
    "system_prompt": "a system prompt",
    "permission_mode": "permission modes",
    "config_dir": "a configuration directory",
    "additional_directories": "additional directories",
    "worktree_name": "worktrees",
    "max_budget_usd": "a budget in USD",
    "resume": "resuming a conversation",
    # commands during a session
    "interrupt": "interrupting a turn",
    "steer": "adding a prompt to the running turn",
    "answer": "approvals and questions",
    "set_model": "changing the model",
    "set_permission_mode": "changing the permission mode",
}
"""Everything that not all agents support, by the name of the option or command."""


def unsupported(name: str) -> str:
    """The refusal for an option or command of `PHRASES`."""
    return f"this agent does not support {PHRASES[name]}"
