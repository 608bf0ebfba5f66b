"""The attack table says what the tests do, and there are tests for every kind of attacker."""

from __future__ import annotations

from tests.attacks import attacks, table, written


def test_the_attack_table_is_up_to_date() -> None:
    assert written() == table(), "python -m tests.attacks"


def test_some_tests_are_marked_as_attacks() -> None:
    found = list(attacks())
    assert len({attack.test for attack in found}) == len(found) > 20
