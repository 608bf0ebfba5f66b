"""How an ACP agent's model and mode are chosen: config options, modes, models; agents offer one or another. Pure.

Owns the requests that choose, and what agents call the permission modes.
"""

from __future__ import annotations

from typing import Any, Final

from msgspec import UNSET, UnsetType

from agentrq_worker.providers.acp.wire import Result
from agentrq_worker.providers.json_line import mapping, optional, text
from agentrq_worker.providers.protocol import CommandRefused
from agentrq_worker.providers.refusals import unsupported

Change = tuple[str, dict[str, Any]]
"""A method and its params, without the session's id."""

_OTHER_NAMES: Final = {
    "bypassPermissions": ("yolo", "full-access"),
    "acceptEdits": ("autoEdit", "auto_edit", "auto"),
    "plan": ("read-only", "architect"),
}
"""Names of permission modes at agents that do not use ours, the best first."""


class Setup:
    """The models and modes that one session of an agent offers, from the result that began it."""

    def __init__(self, result: Result) -> None:
        options = result.config_options if isinstance(result.config_options, list) else []
        self._options = [mapping(option) for option in options]
        modes = mapping(result.modes)
        found = modes.get("availableModes")
        self._modes = [text(mapping(mode).get("id")) for mode in found] if isinstance(found, list) else []
        self._mode = text(modes.get("currentModeId"))
        self._models = bool(mapping(result.models))

    def model(self, model: str) -> Change:
        """The request that chooses a model. Raises `CommandRefused` where the agent offers no choice."""
        option = self._option("model")
        if option is not None:
            return "session/set_config_option", {"configId": option.get("id"), "value": model}
        if self._models:
            return "session/set_model", {"modelId": model}
        raise CommandRefused(f"{unsupported('model')}; set it in the agent's own settings or command")

    def first_mode(self, mode: str) -> Change | None:
        """The request that sets the mode of a new session; None where it needs no change.

        An agent that cannot bypass permissions asks for them; policy or a person answers.
        """
        found = self._find(mode)
        if found is None and mode in ("bypassPermissions", "default"):
            return None
        return None if found is not None and found == self._current() else self.mode(mode)

    def mode(self, mode: str) -> Change:
        """The request that chooses a permission mode. Raises `CommandRefused` where the agent does not offer it."""
        found = self._find(mode)
        if found is None:
            offered = ", ".join(self._modes or self._values(self._option("mode")))
            raise CommandRefused(f"this agent has no permission mode {mode!r}; it has {offered or 'none'}")
        if self._modes:
            return "session/set_mode", {"modeId": found}
        option = self._option("mode") or {}
        return "session/set_config_option", {"configId": option.get("id"), "value": found}

    def _option(self, category: str) -> dict[str, Any] | None:
        return next((option for option in self._options if option.get("category") == category), None)

    def _current(self) -> str:
        return self._mode or text((self._option("mode") or {}).get("currentValue"))

    def _find(self, mode: str) -> str | None:
        offered = self._modes or self._values(self._option("mode"))
        return next((name for name in (mode, *_OTHER_NAMES.get(mode, ())) if name in offered), None)

    def _values(self, option: dict[str, Any] | None) -> list[str]:
        found = (option or {}).get("options")
        return [text(mapping(one).get("value")) for one in found] if isinstance(found, list) else []


def current_model(result: Result) -> str | UnsetType:
    """The model of a new session, if the agent names it."""
    if found := text(mapping(result.models).get("currentModelId")):
        return found
    options = result.config_options if isinstance(result.config_options, list) else []
    for option in map(mapping, options):
        if option.get("category") == "model":
            return optional(option.get("currentValue"))
    return UNSET
