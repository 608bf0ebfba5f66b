"""The pinned packages are pinned, installed as pinned, and not known to be faulty; and the check can say no."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.packaging.audit import advised_against, not_as_pinned, unpinned

HASH = " --hash=sha256:" + "0" * 64


def test_every_requirement_is_one_version_with_a_hash() -> None:
    assert list(unpinned()) == []


def test_what_is_installed_is_what_is_pinned() -> None:
    assert list(not_as_pinned()) == []


def test_no_pin_is_known_to_be_faulty() -> None:
    assert list(advised_against()) == []


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("redis>=8.0" + HASH, ["not one version", None, None]),
        ("redis==8.*" + HASH, ["not one version", "is installed", None]),
        ("redis==8.1.0", ["not one version", None, None]),
        ("redis==4.5.4" + HASH, [None, "is installed", "CVE-2023-28859"]),
        ("no-such-package==1.0" + HASH, [None, "nothing is installed", None]),
        ("no-such-package==1.0 ; python_version < '3'" + HASH, [None, None, None]),
        ("Django==5.2.7" + HASH, [None, "is installed", "CVE-2025-64459"]),
    ],
)
def test_the_audit_finds_a_planted_fault(line: str, says: list[str | None], tmp_path: Path) -> None:
    (tmp_path / "some.txt").write_text(f"# comment\n{line}\n")
    known = Path(__file__).parents[2] / "requirements/advisories.toml"
    (tmp_path / "advisories.toml").write_text(known.read_text())
    found = [list(unpinned(tmp_path)), list(not_as_pinned(tmp_path / "some.txt")), list(advised_against(tmp_path))]
    for lines, expected in zip(found, says, strict=True):
        if expected is not None:
            assert expected in "".join(lines)
    assert not found[0] or says[0]
    assert not found[2] or says[2]
