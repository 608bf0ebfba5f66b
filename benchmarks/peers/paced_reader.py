"""One plain subscriber of many sessions: ``paced_reader URL PATTERN SECONDS``.

Says ``ready`` once it is subscribed; SECONDS later how many messages came, how late they were (their texts begin with
the time they were written at) and the CPU seconds it took. Reads what the plain worker publishes, one message a hint,
and what agentrq does, an array.
"""

from __future__ import annotations

import json
import sys
import time

import redis


def main() -> None:
    url, pattern, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
    pubsub = redis.Redis.from_url(url).pubsub(ignore_subscribe_messages=True)
    pubsub.psubscribe(pattern)
    pubsub.get_message(timeout=1)
    delays: list[int] = []
    print("ready", flush=True)
    cpu, end = time.process_time(), time.monotonic() + seconds
    while time.monotonic() < end:
        hint = pubsub.get_message(timeout=0.2)
        if hint is None:
            continue
        now, said = time.monotonic_ns(), json.loads(hint["data"])
        for message in said if isinstance(said, list) else [said]:
            if message["type"] in ("text", "text_delta") and (text := message["content"]["text"]):
                delays.append(now - int(text.partition(" ")[0]))
    delays.sort()
    at = {name: delays[len(delays) * part // 100] / 1e9 for name, part in (("p50", 50), ("p99", 99))} if delays else {}
    print(json.dumps({"count": len(delays), "cpu": time.process_time() - cpu, **at}), flush=True)


if __name__ == "__main__":
    main()
