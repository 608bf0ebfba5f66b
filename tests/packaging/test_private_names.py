"""The names of RQ and redis-py that agentrq uses without their promise. Each test names the one that has moved.

RQ promises no interface to subclasses and to who writes its records; both are pinned (``rq~=3.0``). Nothing else with a
leading underscore may be used of them: the last test looks for that in the sources.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio
import rq.job
import rq.rate_limit
import rq.suspension
import rq.utils
import rq.worker_registration
from redis.asyncio.connection import Connection, DefaultParser
from redis.client import Pipeline
from redis.commands.core import AsyncScript
from rq import Queue
from rq.executions import Execution, ExecutionRegistry
from rq.group import Group
from rq.intermediate_queue import IntermediateQueue
from rq.job import Job
from rq.rate_limit import RateLimitRegistry
from rq.registry import FailedJobRegistry, ReadyJobRegistry, StartedJobRegistry
from rq.repeat import Repeat
from rq.results import Result
from rq.worker import BaseWorker

ROOT = Path(__file__).parents[2]
UNCONNECTED = redis.Redis(port=1)

NAMES: list[tuple[Any, str, tuple[str, ...]]] = [
    # What holds it, its name, the parameters that are passed to it ("": it is no function).
    (BaseWorker, "_pubsub_exception_handler", ("exc", "pubsub", "pubsub_thread")),  # overridden
    (BaseWorker, "handle_payload", ("message",)),  # overridden
    (BaseWorker, "procline", ("message",)),  # overridden
    (BaseWorker, "get_heartbeat_ttl", ("job", "working_time")),  # overridden
    (BaseWorker, "dequeue_timeout", ()),  # overridden
    (BaseWorker, "executions_key", ()),
    (BaseWorker, "redis_worker_namespace_prefix", ()),
    (BaseWorker, "serialize", ()),
    (BaseWorker, "set_state", ("state", "pipeline")),
    (BaseWorker, "heartbeat", ("timeout", "pipeline")),
    (BaseWorker, "register_birth", ()),
    (BaseWorker, "register_death", ()),
    (BaseWorker, "subscribe", ()),
    (BaseWorker, "unsubscribe", ()),
    (BaseWorker, "increment_failed_job_count", ("pipeline",)),
    (BaseWorker, "increment_successful_job_count", ("pipeline",)),
    (BaseWorker, "increment_total_working_time", ("job_execution_time", "pipeline")),
    (rq.worker_registration, "WORKERS_BY_QUEUE_KEY", ()),
    (rq.worker_registration, "register", ("worker", "pipeline")),
    (rq.worker_registration, "clean_worker_registry", ("queue",)),
    (rq.suspension, "WORKERS_SUSPENDED", ()),
    (rq.utils, "utcformat", ("dt",)),
    (Job, "key_for", ("job_id",)),
    (Job, "dependents_key", ()),
    (Job, "dependencies_key", ()),
    (Job, "restore", ("raw_data",)),
    (Job, "to_dict", ("include_meta", "include_result")),
    (Job, "save", ("pipeline", "include_meta", "include_result")),
    (Job, "cleanup", ("ttl", "pipeline")),
    (Job, "set_status", ("status", "pipeline")),
    (Job, "prepare_for_execution", ("worker_name", "pipeline")),
    (Job, "get_retry_interval", ()),
    (Job, "should_retry", ()),
    (Job, "should_enqueue_at_front", ()),
    (Job, "has_rate_limit", ()),
    (Job, "send_webhooks", ("status", "exc_string")),
    (Queue, "redis_queues_keys", ()),
    (Queue, "registry_cleaning_key", ()),
    (Queue, "intermediate_queue_key", ()),
    (Queue, "push_job_id", ("job_id", "pipeline", "at_front")),
    (Queue, "schedule_job", ("job", "datetime", "pipeline")),
    (Queue, "move_dependents_to_ready", ("job", "pipeline", "refresh_job_status")),
    (Queue, "enqueue_ready_jobs_by_queue", ("job_ids_by_queue_name",)),
    (Queue, "dequeue_any", ("queues", "timeout", "connection", "job_class", "serializer", "death_penalty_class")),
    (IntermediateQueue, "get_first_seen_key", ("job_id",)),
    (IntermediateQueue, "remove", ("job_id",)),
    (Execution, "composite_key", ()),
    (Execution, "worker_executions_key", ()),
    (Execution, "save", ("ttl", "pipeline")),
    (Execution, "delete", ("job", "pipeline")),
    (ExecutionRegistry, "key_template", ()),
    (Result, "create", ("job", "type", "ttl", "return_value", "exc_string", "worker_name", "pipeline",
                        "execution_id", "execution_started_at", "execution_ended_at")),
    (Result, "get_key", ("job_id",)),
    (Repeat, "schedule", ("job", "queue", "pipeline")),
    (Group, "get_key", ("name",)),
    (Group, "acquire_maintenance_lock", ("connection", "timeout")),
    (Group, "clean_registries", ("connection",)),
    (StartedJobRegistry, "cleanup", ("timestamp",)),
    (FailedJobRegistry, "cleanup", ("timestamp",)),
    (ReadyJobRegistry, "cleanup", ()),
    (RateLimitRegistry, "from_job", ("job",)),
    (RateLimitRegistry, "all", ("connection",)),
    (RateLimitRegistry, "cleanup", ()),
    (RateLimitRegistry, "register", ("concurrency", "pipeline")),
    (RateLimitRegistry, "add_to_rate_limited", ("job_id", "pipeline")),
    (RateLimitRegistry, "acquire_and_enqueue", ("concurrency",)),
    (rq.rate_limit, "release_slot", ("job",)),
    (Pipeline, "pipeline_execute_command", ("args", "options")),
    (Pipeline, "multi", ()),
    (redis.connection.AbstractConnection, "__init__", ("redis_connect_func",)),
    (redis.connection.Connection, "on_connect", ()),
    (redis.connection.Connection, "send_command", ("args",)),
    (redis.connection.Connection, "read_response", ()),
    (AsyncScript, "__init__", ("script",)),
    (Connection, "disconnect", ("nowait",)),
    (Connection, "pack_command", ("args",)),
    (DefaultParser, "parse_error", ("response",)),
]  # fmt: skip
PRIVATE = {"_pubsub_exception_handler", "_writer"}
"""All names with a leading underscore that are used of RQ and redis-py."""


@pytest.mark.parametrize(("owner", "name", "parameters"), NAMES, ids=lambda value: getattr(value, "__name__", ""))
def test_a_name_of_rq_or_redis_is_where_it_was(owner: Any, name: str, parameters: tuple[str, ...]) -> None:
    assert hasattr(owner, name), f"{owner.__name__}.{name} has moved"
    if parameters:
        known = inspect.signature(getattr(owner, name)).parameters
        gone = [parameter for parameter in parameters if parameter not in known]
        assert not gone, f"{owner.__name__}.{name} takes {', '.join(gone)} no more"


def test_a_pipeline_collects_commands_in_its_command_stack() -> None:
    pipeline = UNCONNECTED.pipeline()
    pipeline.hset("key", "field", "value")
    pipeline.pipeline_execute_command("EVAL", "return 1", 0)
    assert [command[0] for command in pipeline.command_stack] == [
        ("HSET", "key", "field", "value"),
        ("EVAL", "return 1", 0),
    ]
    assert pipeline.explicit_transaction is False
    pipeline.command_stack.clear()
    pipeline.multi()
    assert pipeline.explicit_transaction is True


def test_rq_reads_the_servers_version_from_the_connection() -> None:
    """Else it would send INFO, and where that is forbidden dequeue by a command that loses jobs."""
    connection = redis.Redis(port=1)
    setattr(connection, "__rq_redis_server_version", (7, 0, 0))
    assert rq.utils.get_version(connection) == (7, 0, 0)


def test_rq_keeps_the_thread_of_its_commands_in_pubsub_thread() -> None:
    assert "pubsub_thread" in BaseWorker.subscribe.__code__.co_names, "BaseWorker.pubsub_thread has moved"


async def test_an_asyncio_connection_has_its_writer(redis_url: str) -> None:
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        connection = await client.connection_pool.get_connection()
        assert connection._writer is not None, "Connection._writer has moved"
        assert connection._writer.transport.get_protocol() is not None
        await connection.disconnect()


def _sources() -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted([*ROOT.glob("producer/src/**/*.py"), *ROOT.glob("worker/src/**/*.py")]):
        yield path, ast.parse(path.read_text("utf-8"))


def _imports(tree: ast.Module, packages: set[str]) -> bool:
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
        if packages & {name.partition(".")[0] for name in names}:
            return True
    return False


def _is_own(value: ast.expr) -> bool:
    return isinstance(value, ast.Name) and value.id in ("self", "cls")


def test_no_other_private_name_of_rq_or_redis_is_used() -> None:
    found = {
        f"{path.name}: {ast.unparse(node)}"
        for path, tree in _sources()
        if _imports(tree, {"redis", "rq"})
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__")
        and not _is_own(node.value) and node.attr not in PRIVATE | {"_replace", "_asdict"}
    }  # fmt: skip
    assert not found
