"""Workspaces: made from a repository or a directory, found again, checkpointed, restored elsewhere, removed."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentrq.wire.workspace import Workspace
from agentrq_worker.process.marks import make_mark
from agentrq_worker.settings import Settings
from agentrq_worker.workspace.session_workspace import CannotMakeWorkspace, SavedPoint, SessionWorkspace
from agentrq_worker.workspace_settings import GitCredentials, Workspaces
from tests.git_repositories import git, make_origin
from tests.git_server import PASSWORD, serve_git

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    return make_origin(tmp_path)


class Machine:
    """Where workers make workspaces."""

    def __init__(self, directory: Path, **options: object) -> None:
        self.settings = Settings(workspaces_dir=str(directory), workspaces=Workspaces(**options))  # type: ignore[arg-type]

    def workspace(self, source: Workspace, session_id: str = "s") -> SessionWorkspace:
        return SessionWorkspace(self.settings, session_id, source, make_mark(session_id))


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "one")


def files_of(place: Path) -> dict[str, bytes]:
    """Every file but git's own, by its path."""
    return {
        str(path.relative_to(place)): path.readlink().as_posix().encode() if path.is_symlink() else path.read_bytes()
        for path in place.rglob("*")
        if ".git" not in path.relative_to(place).parts and (path.is_symlink() or path.is_file())
    }


@pytest.mark.parametrize(
    ("ref", "branch", "text"), [(None, "trunk", "one\n"), ("side", "side", "side\n"), ("v1", None, "one\n")]
)
async def test_a_workspace_begins_at_the_ref_that_was_asked_for(
    machine: Machine, origin: Path, ref: str | None, branch: str | None, text: str
) -> None:
    workspace = machine.workspace(Workspace(git=str(origin), ref=ref))
    assert not await workspace.make(None, recovering=False)
    assert (workspace.files / "a.txt").read_text() == text
    head = (workspace.files / ".git" / "HEAD").read_text().strip()
    assert head == (f"ref: refs/heads/{branch}" if branch else git(origin, "rev-parse", "v1^{commit}"))
    assert git(workspace.files, "remote", "get-url", "origin") == str(origin)
    assert git(workspace.files, "status", "--porcelain") == ""


async def test_a_commit_that_a_branch_has_is_found_by_its_id(machine: Machine, origin: Path) -> None:
    commit = git(origin, "rev-parse", "side")
    workspace = machine.workspace(Workspace(git=str(origin), ref=commit, depth=1))
    await workspace.make(None, recovering=False)
    assert git(workspace.files, "rev-parse", "HEAD") == commit


async def test_the_agent_starts_in_the_directory_that_path_names(machine: Machine, origin: Path) -> None:
    workspace = machine.workspace(Workspace(git=str(origin), path="sub"))
    await workspace.make(None, recovering=False)
    assert workspace.cwd == str(workspace.files / "sub")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ({"ref": "nowhere"}, "it has no branch, tag or commit 'nowhere'"),
        ({"path": "nowhere"}, "it has no directory 'nowhere'"),
        ({"credentials": "none"}, "the worker has no credentials 'none'"),
    ],
)
async def test_what_is_not_there_is_said(machine: Machine, origin: Path, source: dict[str, str], said: str) -> None:
    workspace = machine.workspace(Workspace(git=str(origin), **source))  # type: ignore[arg-type]

    async def directory() -> str:
        await workspace.make(None, recovering=False)
        return workspace.cwd

    with pytest.raises(CannotMakeWorkspace, match=said):
        await directory()


async def test_a_repository_that_is_not_there_is_said_in_one_line(machine: Machine, tmp_path: Path) -> None:
    with pytest.raises(CannotMakeWorkspace) as caught:
        await machine.workspace(Workspace(git=str(tmp_path / "gone"))).make(None, recovering=False)
    assert "gone" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert [path.name for path in (tmp_path / "one").iterdir()] == ["mirrors"]


async def test_a_path_that_a_link_leads_out_of_the_workspace_is_refused(machine: Machine, origin: Path) -> None:
    workspace = machine.workspace(Workspace(git=str(origin), path="sub"))
    await workspace.make(None, recovering=False)
    shutil.rmtree(workspace.files / "sub")
    (workspace.files / "sub").symlink_to("/etc")
    with pytest.raises(CannotMakeWorkspace, match="leads out"):
        assert workspace.cwd


@pytest.mark.parametrize("limit", ["history", "files"])
async def test_a_repository_over_the_limit_is_not_checked_out(origin: Path, tmp_path: Path, limit: str) -> None:
    made = tmp_path / "big"
    git(tmp_path, "clone", "-q", str(origin), str(made))
    (made / "zeros").write_bytes(os.urandom(3 << 20) if limit == "history" else bytes(3 << 20))
    git(made, "add", "-A")
    git(made, "commit", "-qm", "big")
    git(made, "push", "-q", "origin", "HEAD")
    machine = Machine(tmp_path / "one", max_bytes=2 << 20)
    with pytest.raises(CannotMakeWorkspace):
        await machine.workspace(Workspace(git=str(origin))).make(None, recovering=False)


async def test_nothing_changed_makes_no_checkpoint(machine: Machine, origin: Path) -> None:
    workspace = machine.workspace(Workspace(git=str(origin)))
    await workspace.make(None, recovering=False)
    assert await workspace.save(1) is None
    (workspace.files / "a.txt").write_text("changed\n")
    assert await workspace.save(2) is not None
    assert await workspace.save(3) is None


STATES = ("clean", "detached", "staged", "stash", "rebase under way", "locked index", "no repository")


def bring_into(state: str, files: Path) -> None:
    """The workspace as an agent may leave it at a turn's end."""
    if state == "detached":
        git(files, "checkout", "-q", "--detach")
    elif state == "staged":
        (files / "staged").write_text("staged\n")
        git(files, "add", "staged")
    elif state == "stash":
        (files / "a.txt").write_text("stashed\n")
        git(files, "stash", "-q")
    elif state == "rebase under way":
        (files / "a.txt").write_text("other\n")
        git(files, "commit", "-qam", "other")
        subprocess.run(["git", "-C", files, "rebase", "origin/side"], capture_output=True, check=False)
        assert (files / ".git" / "rebase-merge").exists()
    elif state == "locked index":
        (files / ".git" / "index.lock").touch()
    elif state == "no repository":
        shutil.rmtree(files / ".git")


@pytest.mark.parametrize("kept", ["machine", "origin"])
@pytest.mark.parametrize("state", STATES)
async def test_a_checkpoint_restores_every_file_and_touches_nothing(
    origin: Path, tmp_path: Path, state: str, kept: str
) -> None:
    machine = Machine(tmp_path / "one", checkpoints=kept)
    source = Workspace(git=str(origin))
    workspace = machine.workspace(source)
    await workspace.make(None, recovering=False)
    bring_into(state, workspace.files)
    (workspace.files / "new file\nof an odd name").write_bytes(b"\x00\xff\r\n")
    (workspace.files / "crlf.txt").write_bytes(b"a\r\nb\n")
    (workspace.files / ".gitattributes").write_text("*.txt text=auto eol=lf filter=evil\n")
    (workspace.files / "link").symlink_to("/etc/passwd")
    (workspace.files / "run.sh").write_text("#!/bin/sh\n")
    (workspace.files / "run.sh").chmod(0o755)
    (workspace.files / "noise.log").write_text("ignored\n")
    (workspace.files / "sub" / "b.txt").unlink()
    own = workspace.files / ".git"
    before = {path: path.read_bytes() for path in own.rglob("*") if path.is_file()} if own.exists() else {}
    made = await workspace.save(7)
    assert made is not None
    assert made.left_out == []
    assert {path: path.read_bytes() for path in before} == before
    expected = files_of(workspace.files)
    del expected["noise.log"]
    saved = SavedPoint(made.turn, made.commit)
    assert SavedPoint.parse(str(saved)) == saved
    there = machine if kept == "machine" else Machine(tmp_path / "other", checkpoints=kept)
    if kept == "machine":
        shutil.rmtree(workspace.files)
    again = there.workspace(source)
    assert await again.make(saved, recovering=True)
    assert files_of(again.files) == expected
    assert (again.files / "run.sh").stat().st_mode & 0o111
    if state not in ("no repository", "rebase under way"):
        assert (
            git(again.files, "rev-parse", "HEAD") == git(workspace.files, "rev-parse", "HEAD")
            if kept == "origin"
            else True
        )
        assert (again.files / ".git" / "HEAD").read_text().startswith("ref:") == (state != "detached")
    assert await again.save(8) is None, "what was restored is what is held"


async def test_files_that_are_newer_than_the_checkpoint_are_found_again(machine: Machine, origin: Path) -> None:
    workspace = machine.workspace(Workspace(git=str(origin)))
    await workspace.make(None, recovering=False)
    (workspace.files / "a.txt").write_text("at the checkpoint\n")
    made = await workspace.save(1)
    assert made is not None
    (workspace.files / "a.txt").write_text("in the turn that was cut\n")
    assert not await machine.workspace(Workspace(git=str(origin))).make(SavedPoint(1, made.commit), recovering=True)
    assert (workspace.files / "a.txt").read_text() == "in the turn that was cut\n"


async def test_files_that_are_older_than_the_checkpoint_are_set_aside(origin: Path, tmp_path: Path) -> None:
    """The session was on another machine meanwhile."""
    one, other = (Machine(tmp_path / name, checkpoints="origin") for name in ("one", "other"))
    source = Workspace(git=str(origin))
    here, there = one.workspace(source), other.workspace(source)
    await here.make(None, recovering=False)
    (here.files / "a.txt").write_text("first\n")
    first = await here.save(1)
    assert first is not None
    (here.files / "unsaved").write_text("cut\n")
    assert await there.make(SavedPoint(1, first.commit), recovering=True)
    (there.files / "a.txt").write_text("second\n")
    second = await there.save(2)
    assert second is not None
    assert await here.make(SavedPoint(2, second.commit), recovering=True)
    assert files_of(here.files)["a.txt"] == b"second\n"
    (aside,) = (tmp_path / "one").glob(".s.*.old")
    assert (aside / "files" / "unsaved").read_text() == "cut\n"


async def test_a_checkpoint_of_another_machine_that_was_not_pushed_is_named(origin: Path, tmp_path: Path) -> None:
    source = Workspace(git=str(origin))
    other = Machine(tmp_path / "other")
    with pytest.raises(CannotMakeWorkspace, match="of turn 3 is on the machine where it was made"):
        await other.workspace(source).make(SavedPoint(3, "1" * 40), recovering=True)


@pytest.mark.parametrize("what", ["large", "repository within", "fifo"])
async def test_files_that_no_checkpoint_holds_are_told_and_never_deleted(
    origin: Path, tmp_path: Path, what: str
) -> None:
    machine = Machine(tmp_path / "one", max_file=1000)
    workspace = machine.workspace(Workspace(git=str(origin)))
    await workspace.make(None, recovering=False)
    place = workspace.files / "thing"
    if what == "large":
        place.write_bytes(bytes(1001))
    elif what == "fifo":
        os.mkfifo(place)
    else:
        place.mkdir()
        git(place, "init", "-q")
        (place / "work").write_text("work\n")
    made = await workspace.save(1)
    if what == "fifo":  # git does not know such a file; it has no contents
        assert made is None
    else:
        assert made is not None
        assert made.left_out[0].rstrip("/") == "thing"
        await workspace.remove()
        assert place.exists()


async def test_a_workspace_that_is_held_is_removed_and_its_checkpoint_stays(machine: Machine, origin: Path) -> None:
    workspace = machine.workspace(Workspace(git=str(origin)))
    await workspace.make(None, recovering=False)
    (workspace.files / "a.txt").write_text("work\n")
    made = await workspace.save(1)
    assert made is not None
    await workspace.remove()
    assert not workspace.files.exists()
    assert await workspace.make(SavedPoint(1, made.commit), recovering=True)
    assert (workspace.files / "a.txt").read_text() == "work\n"


async def test_changes_since_the_last_checkpoint_keep_a_workspace(machine: Machine, origin: Path) -> None:
    workspace = machine.workspace(Workspace(git=str(origin)))
    await workspace.make(None, recovering=False)
    (workspace.files / "a.txt").write_text("work\n")
    (workspace.files.parent / "checkpoints.git" / "workspace-index.lock").touch()
    await workspace.remove()
    assert (workspace.files / "a.txt").read_text() == "work\n"


async def test_the_repositorys_and_the_agents_own_programs_do_not_run(
    machine: Machine, origin: Path, tmp_path: Path
) -> None:
    mark = tmp_path / "ran"
    script = tmp_path / "script"
    script.write_text(f"#!/bin/sh\necho ran >> {mark}\ncat\n")
    script.chmod(0o755)
    workspace = machine.workspace(Workspace(git=str(origin)))
    await workspace.make(None, recovering=False)
    for key in ("core.fsmonitor", "core.sshCommand", "filter.evil.clean", "filter.evil.smudge", "core.pager",
                "uploadpack.packObjectsHook", "diff.external", "gpg.program", "core.editor"):  # fmt: skip
        git(workspace.files, "config", key, str(script))
    git(workspace.files, "config", "filter.evil.required", "true")
    for hook in ("pre-commit", "post-checkout", "reference-transaction", "post-index-change", "pre-push"):
        place = workspace.files / ".git" / "hooks" / hook
        place.parent.mkdir(exist_ok=True)
        place.write_text(script.read_text())
        place.chmod(0o755)
    (workspace.files / ".gitattributes").write_text("* filter=evil diff=evil\n")
    (workspace.files / "a.txt").write_text("work\n")
    made = await workspace.save(1)
    assert made is not None
    await workspace.remove()
    assert await workspace.make(SavedPoint(1, made.commit), recovering=True)
    assert not mark.exists()


async def test_a_directory_is_copied(machine: Machine, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "a").write_text("a")
    workspace = machine.workspace(Workspace(copy=str(source)))
    await workspace.make(None, recovering=False)
    (workspace.files / "a").write_text("changed")
    made = await workspace.save(1)
    assert made is not None
    assert (source / "a").read_text() == "a"
    await workspace.remove()
    assert await workspace.make(SavedPoint(1, made.commit), recovering=True)
    assert files_of(workspace.files) == {"a": b"changed"}


async def test_an_earlier_sessions_files_by_the_same_id_are_set_aside(machine: Machine, origin: Path) -> None:
    first = machine.workspace(Workspace(git=str(origin)))
    await first.make(None, recovering=False)
    (first.files / "left").write_text("left")
    await machine.workspace(Workspace(git=str(origin))).make(None, recovering=False)
    assert not (first.files / "left").exists()


@pytest.mark.parametrize(
    "source",
    [
        {},
        {"git": "https://h/r", "copy": "/x"},
        {"git": "ext::sh -c touch% /tmp/x"},
        {"git": "-uhttps://h/r"},
        {"git": "https://user:secret@h/r"},
        {"git": "https://-h/r"},
        {"git": "file://host/path"},
        {"git": "ftp://h/r"},
        {"git": "h:-r"},
        {"git": "https://h/r\n"},
        {"git": "https://h/r", "ref": "--upload-pack=x"},
        {"git": "https://h/r", "ref": "a..b"},
        {"git": "https://h/r", "depth": 0},
        {"git": "https://h/r", "path": "../x"},
        {"git": "https://h/r", "path": "/x"},
        {"git": "https://h/r", "path": ".git"},
        {"copy": "x"},
        {"copy": "/x", "ref": "a"},
    ],
)
def test_a_workspace_that_cannot_be_meant_is_refused(source: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        Workspace(**source)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("address", "host"),
    [
        ("https://GitHub.com/a/b.git", "github.com"),
        ("https://user@h:8443/a", "h"),
        ("ssh://git@h/a", "h"),
        ("git@github.com:a/b.git", "github.com"),
        ("https://[::1]:80/a", "[::1]"),
        ("/srv/a.git", None),
        ("file:///srv/a.git", None),
    ],
)
def test_the_host_of_a_repository_is_what_git_connects_to(address: str, host: str | None) -> None:
    assert Workspace(git=address).host == host


# -- a server that asks who is there


@pytest.fixture
def server(origin: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, list[str]]]:
    git(origin, "config", "http.receivepack", "true")
    monkeypatch.setenv("SHOP_TOKEN", PASSWORD)
    with serve_git(origin.parent) as (address, refused):
        yield f"{address}/origin.git", refused


def with_credentials(place: Path, **given: object) -> Machine:
    given = {"hosts": ["127.0.0.1"], "password_env": "SHOP_TOKEN"} | given
    return Machine(place, checkpoints="origin", credentials={"shop": GitCredentials(**given)})  # type: ignore[arg-type]


async def test_credentials_open_a_repository_and_are_kept_nowhere(
    server: tuple[str, list[str]], origin: Path, tmp_path: Path
) -> None:
    machine = with_credentials(tmp_path / "one")
    workspace = machine.workspace(Workspace(git=server[0], credentials="shop"))
    await workspace.make(None, recovering=False)
    (workspace.files / "a.txt").write_text("work\n")
    made = await workspace.save(1)
    assert made is not None
    assert git(origin, "show", "refs/agentrq/s/1:a.txt") == "work"
    assert git(workspace.files, "remote", "get-url", "origin") == server[0]
    kept = [path for path in (tmp_path / "one").rglob("*") if path.is_file() and PASSWORD.encode() in path.read_bytes()]
    assert kept == []


async def test_the_password_is_in_no_list_of_processes_and_no_environment(
    server: tuple[str, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for git looks at itself, then becomes git."""
    programs, seen = tmp_path / "programs", tmp_path / "seen"
    programs.mkdir()
    real = shutil.which("git")
    (programs / "git").write_text(f'#!/bin/sh\ncat /proc/self/environ /proc/$$/cmdline >> {seen}\nexec {real} "$@"\n')
    (programs / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    workspace = with_credentials(tmp_path / "one").workspace(Workspace(git=server[0], credentials="shop"))
    await workspace.make(None, recovering=False)
    assert b"GIT_CONFIG_KEY" in seen.read_bytes()
    assert PASSWORD.encode() not in seen.read_bytes()


@pytest.mark.parametrize(
    ("named", "given"),
    [(None, {}), ("shop", {"hosts": ["elsewhere.example"]}), ("shop", {"username": "somebody"})],
    ids=["none", "another host's", "wrong"],
)
async def test_credentials_that_do_not_fit_are_refused_without_a_question(
    server: tuple[str, list[str]], tmp_path: Path, named: str | None, given: dict[str, object]
) -> None:
    workspace = with_credentials(tmp_path / "one", **given).workspace(Workspace(git=server[0], credentials=named))
    with pytest.raises(CannotMakeWorkspace, match=r"Authentication failed|could not read Username"):
        await workspace.make(None, recovering=False)
    sent = [header for header in server[1] if header]
    assert bool(sent) == ("username" in given)


async def test_a_mirror_that_one_may_read_does_not_open_it_to_another(
    server: tuple[str, list[str]], tmp_path: Path
) -> None:
    machine = with_credentials(tmp_path / "one")
    await machine.workspace(Workspace(git=server[0], credentials="shop")).make(None, recovering=False)
    with pytest.raises(CannotMakeWorkspace):
        await machine.workspace(Workspace(git=server[0]), "other").make(None, recovering=False)
