"""A reader of many sessions with redis-py alone: ``plain_reader URL timed|untimed SESSIONS``; as benchmarks.reader."""

from __future__ import annotations

import json
import sys

import redis

from benchmarks.tally import COUNTED, Tally


def main() -> None:
    url, timed, sessions = sys.argv[1:]
    tally = Tally(int(sessions), timed == "timed")
    client = redis.Redis.from_url(url, socket_timeout=None)
    pubsub = client.pubsub(ignore_subscribe_messages=True)
    pubsub.subscribe(*(f"plain:s{number}:messages" for number in range(int(sessions))))
    pubsub.get_message(timeout=1)
    print("ready", flush=True)
    for hint in pubsub.listen():
        message = json.loads(hint["data"])
        if message["type"] in COUNTED:
            tally.count(message["content"]["text"] if tally.timed else "")
        elif message["type"] == "cost":
            tally.turn_over()


if __name__ == "__main__":
    main()
