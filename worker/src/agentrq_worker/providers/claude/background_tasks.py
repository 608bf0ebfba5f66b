"""Claude Code's background tasks: the sub-agents and shells that go on working between turns.

Owns which of them run, from the `system` lines that tell it. What a session does about them is not decided here.
"""

from __future__ import annotations

from typing import Any, Final

from agentrq_worker.providers.json_line import mapping, text

SUBTYPES: Final = frozenset({"background_tasks_changed", "task_started", "task_updated", "task_notification"})
"""The subtypes of `system` lines about background tasks."""
_RUNS: Final = frozenset({"", "pending", "running", "paused"})


class BackgroundTasks:
    """The tasks that run in the background now. ``background_tasks_changed`` lists them all; older CLIs lack it."""

    def __init__(self) -> None:
        self._labels: dict[str, str] = {}
        self._known: dict[str, str] = {}  # the labels of tasks in the foreground, which may be sent to the background

    @property
    def labels(self) -> tuple[str, ...]:
        """A short text for each task that runs, oldest first."""
        return tuple(self._labels.values())

    def read(self, subtype: str, found: dict[str, Any]) -> None:
        """Reads one `system` line of `SUBTYPES`."""
        if subtype == "background_tasks_changed":
            tasks = found.get("tasks")
            self._labels = {
                text(task.get("task_id")): _label(task)
                for task in map(mapping, tasks if isinstance(tasks, list) else ())
                if task.get("ambient") is not True
            }
            return
        task = text(found.get("task_id"))
        patch = mapping(found.get("patch"))
        if subtype == "task_started":
            if found.get("ambient") is not True:
                (self._labels if found.get("is_backgrounded") is True else self._known)[task] = _label(found)
        elif subtype == "task_notification" or text(patch.get("status")) not in _RUNS:
            self._labels.pop(task, None)
            self._known.pop(task, None)
        elif patch.get("is_backgrounded") is True and task in self._known:
            self._labels[task] = self._known.pop(task)


def _label(task: dict[str, Any]) -> str:
    return text(task.get("description")) or text(task.get("task_type")) or text(task.get("task_id"))
