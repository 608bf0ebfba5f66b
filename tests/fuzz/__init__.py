"""Fuzzing: targets (targets.py), inputs worth keeping (corpus/), their replay by every run of the tests
(test_corpus.py), and a search for new ones (``python -m tests.fuzz``, ``make fuzz``)."""
