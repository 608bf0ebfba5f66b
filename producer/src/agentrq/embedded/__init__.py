"""The private embedded Valkey that one user's commands share."""
