"""What a policy decides on the paths of an agent that looks for a way around it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrq.wire.approval_policy import read_policy
from agentrq.wire.call_targets import Directories
from agentrq_worker.session.approval_policy import decide
from tests.attacks import attack

SHOP = "/srv/shop/*"
ALLOWS_SHOP = read_policy({"rules": [{"path": SHOP, "decision": "allow"}]})
DENIES_ETC = read_policy({"default": "allow", "rules": [{"path": "/etc/*", "decision": "deny"}]})
ETC = "/etc/cron.d/job"
HERE = Directories("/srv/shop", "/srv/shop/home")


def patch(*kinds: dict[str, Any]) -> dict[str, Any]:
    return {"changes": [{"path": "/srv/shop/a.py", "kind": kind, "diff": "x"} for kind in kinds]}


ALSO_ETC = [
    {"file_path": "/srv/shop/a", "path": ETC}, {"path": "/srv/shop/a", "notebook_path": ETC},
    {"paths": ["/srv/shop/a", ETC]},
    {"files": [{"path": "/srv/shop/a"}, {"path": ETC}]}, {"source": "/srv/shop/a", "destination": ETC}, {"from": "a",
    "to": ETC},
    {"path": "/srv/shop/a", "edits": [{"file": {"uri": f"file://{ETC}"}}]}, {"path": "/srv/shop/a", "output": ETC},
    {"path": "/srv/shop/a", "options": {"target": "../../etc/cron.d/job"}}, {"files": {"/srv/shop/a": "x", ETC: "y"}},
    {"path": "/srv/shop/a", "data": ETC}, {"filePath": "/srv/shop/a", "newFilePath": ETC},
    {"path": "../../etc/cron.d/job"},
    {"path": "/srv/shop/../../etc/cron.d/job"},
    {"path": "~/../../../etc/cron.d/job"}, {"path": "$HOME/../../../etc/cron.d/job"},
    {"path": "${HOME}/../../../etc/cron.d/job"},
    {"path": "job", "cwd": "/etc/cron.d"}, {"path": "/srv/shop/a", "inner": [{"cwd": "/etc/cron.d", "path": "job"}]},
    {"uri": f"file://localhost{ETC}"}, {"uri": "file:///%65tc/cron.d/job"}, {"uri": "FILE:/etc/cron.d/job"},
    patch({"type": "update", "move_path": ETC}), patch({"type": "add"}, {"type": "update", "movePath": ETC}),
    {"changes": {"/srv/shop/a": {"type": "add"}, ETC: {"type": "delete"}}},
    {"patch": f"*** Begin Patch\n*** Update File: /srv/shop/a\n*** Move to: {ETC}\n@@\n"},
    {"input": f"*** Begin Patch\n*** Add File: {ETC}\n+x\n*** End Patch"},
    {"diff": f"--- /srv/shop/a\n+++ {ETC}\n@@\n"},
    {"path": "/srv/shop/a", "patch": f"rename from a\nrename to {ETC}\n"}, {"path": f" {ETC} "},
    {"path": "%2e%2e/%2E%2E/etc/cron.d/job"},
    {"path": "/srv/shop/a", "permissions": {"fileSystem": {"write": [ETC]}}},
    {"path": "/srv/shop/a", "edits": f'[{{"path": "{ETC}"}}]'},
    {"path": "/srv/shop/a", "arguments": f' {{"p": "{ETC}"}}'},
    {"files": f"/srv/shop/a\n{ETC}"}, {"paths": f"/srv/shop/a, {ETC}"}, {"paths": f"a:{ETC}"},
]  # fmt: skip


@attack(
    "a call that names a second path: in another member, a list, a nested edit, a move, a patch's header, as `file:`, "
    "`~`, `..`",
    "no `allow` by path matches, every `deny` does",
)
@pytest.mark.parametrize("given", ALSO_ETC)
def test_every_path_of_a_call_counts(given: Any) -> None:
    assert ALLOWS_SHOP.decide("Any", given, HERE) == "ask"
    assert DENIES_ETC.decide("Any", given, HERE) == "deny"


@pytest.mark.parametrize(
    "given",
    [
        {"file_path": "/srv/shop/a.py"}, {"file_path": "a.py"}, {"path": "~/a", "limit": 5}, {"path": "$HOME/a"},
        {"file_path": "a", "old_string": "/etc/x", "new_string": "../../y", "replace_all": True},
        {"file_path": "a", "content": "*** Add File: /etc/x"}, {"file_path": "a", "edits": [{"oldText": "/etc/x",
        "newText": ""}]},
        {"notebook_path": "a.ipynb", "new_source": "/etc", "cell_type": "code", "edit_mode": "replace",
        "cell_id": "x"},
        {"path": "src", "pattern": "**/*.py"}, {"path": "src", "output_mode": "content", "head_limit": 5, "-n": True},
        {"source": "./a", "destination": "/srv/shop/b"}, patch({"type": "update", "move_path": None}),
        patch({"type": "add"}),
        {"path": "a", "data": "hello", "format": "json"}, {"paths": ["a", "b/c"]}, {"path": "a%20b/{slug}/[id].tsx"},
        {"uri": "file:///srv/shop/a"},
        {"path": "a", "url": "https://host/etc/x"}, {"path": "a", "pattern": "[a-z] {x"}, {"path": "My file, old.txt"},
        {"path": "a", "options": '{"limit": 5}'},
        {"path": "/srv/shop/a", "diff": "@@ -1 +1 @@\n-a\n+b"},
    ],
)  # fmt: skip
def test_an_ordinary_call_in_an_allowed_directory_is_allowed(given: Any) -> None:
    assert ALLOWS_SHOP.decide("Any", given, HERE) == "allow"
    assert DENIES_ETC.decide("Any", given, HERE) == "allow"


@pytest.mark.parametrize(
    "given",
    [
        {}, {"content": "x"}, {"query": "DROP TABLE"}, {"url": "https://evil"}, {"path": ["/srv/shop/a", "$X/b"]},
        {"path": "~bob/a"},
        {"path": "../../proc/self/cwd/a"}, {"path": "a/{b,/etc/c}"}, {"path": "a", "pattern": "{/etc/*,b}"},
        {"path": "/proc/self/cwd/a"}, {"path": "/dev/fd/3"}, {"path": "vscode://a/b"},
        {"path": [f"a{i}" for i in range(1000)]},
        {"command": "cat /srv/shop/a", "path": "/srv/shop/a"}, {"command": "ls", "cwd": "/srv/shop/x"}, {"to": "bob",
        "text": "x"},
        {"patch": "no header"},
        {"path": "a", "patch": "diff --git a/x b/../../etc/x\nold mode 100644\nnew mode 100755\n"},
        {"path": "a", "options": "[" * 100_000},
        {"path": "a\0b"}, {"path": "a" * 5000}, {"path": "/srv/shop"}, "/srv/shop/a", None,
        b"undecodable",
    ],
)  # fmt: skip
def test_no_allow_by_path_matches_what_cannot_be_told(given: Any) -> None:
    assert ALLOWS_SHOP.decide("Any", given, HERE) == "ask"


@pytest.mark.parametrize(
    "given",
    [{"path": "$X/passwd"}, {"path": "~bob/x"}, {"path": "/proc/self/root/x"},
    {"path": [f"a{i}" for i in range(1000)]}, {"patch": "x"}],
)  # fmt: skip
def test_a_person_is_asked_where_a_denied_path_may_be_meant(given: Any) -> None:
    assert decide(DENIES_ETC, read_policy("allow"), "Any", given, HERE) == "ask"


def test_a_word_of_an_unknown_member_may_be_a_file_of_the_working_directory() -> None:
    elsewhere = Directories("/srv/app")
    assert ALLOWS_SHOP.decide("Any", {"path": "/srv/shop/a", "output": "b"}, elsewhere) == "ask"
    assert ALLOWS_SHOP.decide("Any", {"path": "/srv/shop/a", "data": "b"}, elsewhere) == "allow"


def test_a_home_that_is_not_known_is_not_guessed() -> None:
    assert ALLOWS_SHOP.decide("Any", {"path": "~/a"}, Directories("/srv/shop")) == "ask"


@attack(
    "a link in the workspace that leads out of what an `allow` names, or to what a `deny` names",
    "not allowed, denied: links are followed when the decision is made; *not prevented*: a link put there afterwards, "
    "hard links",
)
def test_a_path_counts_as_what_it_leads_to(tmp_path: Path) -> None:
    shop, outside = tmp_path / "shop", tmp_path / "outside"
    (shop / "deep").mkdir(parents=True)
    outside.mkdir()
    (shop / "out").symlink_to(outside)
    (shop / "deep" / "up").symlink_to("../..")
    (outside / "in").symlink_to(shop)
    real = os.path.realpath(shop)
    allows = read_policy({"rules": [{"path": f"{real}/*", "decision": "allow"}]})
    denies = read_policy(
        {"default": "allow", "rules": [{"path": f"{os.path.realpath(outside)}/*", "decision": "deny"}]}
    )
    where = Directories(str(shop), None, os.path.realpath)
    for path in ("out/a", f"{shop}/out/a", "deep/up/outside/a", "deep/up/a", "out/../outside/a"):
        assert allows.decide("Edit", {"file_path": path}, where) == "ask", path
    for path in ("out/a", "deep/up/outside/a", "./out/new/file"):
        assert denies.decide("Edit", {"file_path": path}, where) == "deny", path
    for path in ("a", "deep/a", f"{outside}/in/a", "new/file"):
        assert allows.decide("Edit", {"file_path": path}, where) == "allow", path


PATHS = st.lists(st.sampled_from(["a", "b", "..", ".", "link", "etc"]), min_size=1, max_size=6).map("/".join)


MEMBERS = st.sampled_from(["path", "files", "to", "x", "content", "cwd", "kind", "edits"])
CALLS = st.recursive(
    PATHS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(MEMBERS, inner, max_size=3), max_leaves=6
)


@given(CALLS)
def test_what_is_allowed_names_nothing_outside(given: Any) -> None:
    """Each text of an allowed call, but for contents, lies in the directory if it is a path."""
    if ALLOWS_SHOP.decide("Any", {"call": given}, HERE) != "allow":
        return

    def texts(value: Any, base: str, contents: bool = False) -> Any:
        if isinstance(value, dict):
            base = os.path.join(base, value["cwd"]) if isinstance(value.get("cwd"), str) else base
            for name, member in value.items():
                if not (name == "cwd" and isinstance(member, str)):
                    yield from texts(member, base, name in ("content", "kind"))
        elif isinstance(value, list):
            for item in value:
                yield from texts(item, base, contents)
        elif not contents:
            yield os.path.normpath(os.path.join(base, value))

    assert all(path.startswith("/srv/shop/") for path in texts(given, "/srv/shop"))
