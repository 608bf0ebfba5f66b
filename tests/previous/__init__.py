"""The version before this one, as built wheels: what a rolling upgrade meets.

Renewed when a version is released: the two wheels of its tag replace these (``make wheels`` on the tag).
"""
