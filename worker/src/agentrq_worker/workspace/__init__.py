"""The files of sessions that ask for a workspace: made from a repository or a directory, kept by checkpoints."""
