"""Of ``valkey-cli`` what the documents use: ``-u URL``, a command as arguments, or commands on stdin."""

from __future__ import annotations

import os
import shlex
import sys

import redis


def main(arguments: list[str]) -> None:
    url = os.environ["AGENTRQ_REDIS_URL"]
    if arguments[:1] == ["-u"]:
        url, arguments = arguments[1], arguments[2:]
    lines = [arguments] if arguments else [shlex.split(line) for line in sys.stdin]
    with redis.Redis.from_url(url, decode_responses=True) as client:
        for words in lines:
            print(client.execute_command(*words))


main(sys.argv[1:])
