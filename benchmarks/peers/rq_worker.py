"""A stock RQ worker (forking), as ``rq worker`` runs it: ``rq_worker URL QUEUE``."""

from __future__ import annotations

import sys

import redis
from rq import Queue, Worker


def main() -> None:
    connection = redis.Redis.from_url(sys.argv[1])
    worker = Worker([Queue(sys.argv[2], connection=connection)], connection=connection)
    print("ready", flush=True)
    worker.work(logging_level="ERROR")


if __name__ == "__main__":
    main()
