"""The built-in runners: programs of their own, run as ``python -m agentrq_worker.builtin_runners.NAME``, not a library.

They import nothing of the worker or the client. They share protocol.py and state_files.py.
"""
