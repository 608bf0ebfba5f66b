"""A session every morning, and a prompt to a long-lived one every hour, by RQ's cron.

Run: AGENTRQ_REDIS_URL=redis://… python examples/cron_prompt.py
"""

import os

import agentrq
from agentrq.connection import connect
from agentrq.cron import JSONCronScheduler
from agentrq.wire.keys import control_queue, queue_name

INTERVAL_S = int(os.environ.get("INTERVAL_S", "3600"))

scheduler = JSONCronScheduler(connect(os.environ["AGENTRQ_REDIS_URL"]))
scheduler.register(
    agentrq.start, queue_name(), args=(None, "demo", "Good morning: what changed?", {"cwd": "/tmp"}), cron="0 7 * * 1-5"
)
scheduler.register(agentrq.prompt, control_queue(queue_name()), args=("caretaker", "Look again."), interval=INTERVAL_S)

if __name__ == "__main__":
    scheduler.start()
