"""agentrq-worker: hosts many coding-agent sessions in one RQ worker."""
