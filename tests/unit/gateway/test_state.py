"""The state folder: private, held by one gateway, with messages that never show a secret."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from gateway.controlplane.state import Keys, State, StateError, open_state, read_secret_file

CANARY = "canary-canary-canary"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "state"


@pytest.fixture
def state(path: Path) -> State:
    return open_state(path)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_folder_and_its_files_are_private(state: State, path: Path) -> None:
    state.management_token()
    assert mode_of(path) == 0o700
    files = [found for found in path.rglob("*") if found.is_file()]
    assert {found.name for found in files} == {"gateway.lock", "management.token"}
    assert {mode_of(found) for found in files} == {0o600}


def test_only_one_gateway_at_a_time_holds_a_folder(path: Path) -> None:
    first = open_state(path)
    with pytest.raises(StateError, match=f"in use by the gateway with process id {os.getpid()}; .*--state"):
        open_state(path)
    first.close()
    first.close()
    second = open_state(path)
    assert (path / "gateway.lock").read_text() == f"{os.getpid()}\n"
    second.close()


def test_the_lock_is_not_inherited_by_programs_that_are_started(state: State) -> None:
    assert not os.get_inheritable(state._lock)


def test_a_lock_without_a_process_id_still_makes_a_sentence(state: State, path: Path) -> None:
    (path / "gateway.lock").write_text("")
    with pytest.raises(StateError, match="process id unknown"):
        open_state(path)


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError, match="file cannot be used: a file of that name is in the way"):
        open_state(tmp_path / "file")
    with pytest.raises(StateError, match="Not a directory"):
        open_state(tmp_path / "file" / "state")


def test_a_lock_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "gateway.lock").symlink_to(tmp_path / "target")
    with pytest.raises(StateError, match="cannot be used"):
        open_state(tmp_path / "state")
    assert not (tmp_path / "target").exists()


def test_a_folder_that_others_may_write_to_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(StateError, match=r"every user may write to .*; give it mode 0700"):
        open_state(tmp_path)


def test_a_folder_of_another_user_is_refused_and_roots_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = tmp_path.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    if owner == 0:
        open_state(tmp_path).close()
        os.chown(tmp_path, 7, -1)
    with pytest.raises(StateError, match=r"belongs to user .*, and the gateway runs as"):
        open_state(tmp_path)


def test_a_folder_that_is_not_writable_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(StateError, match="is not writable for user"):
        open_state(tmp_path)


def test_a_full_disk_at_the_lock_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(StateError, match="No space left on device"):
        open_state(tmp_path)
    monkeypatch.undo()
    # The failed attempt holds nothing.
    open_state(tmp_path).close()


def test_a_write_that_fails_leaves_nothing_behind(state: State, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StateError, match=r"management\.token cannot be written: No space left on device"):
        state.management_token()
    assert [found.name for found in path.iterdir()] == ["gateway.lock"]


def test_a_folder_that_may_not_be_looked_into_is_a_sentence(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(_: Path) -> os.stat_result:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "lstat", denied)
    with pytest.raises(StateError, match=r"management\.token cannot be read: Permission denied"):
        state.management_token()


def test_the_management_token_is_made_once_and_stays(state: State) -> None:
    made = state.management_token()
    assert len(made) == 43
    assert state.management_token() == made


def test_a_management_token_of_the_operators_own_is_taken_when_it_is_long_enough(state: State, path: Path) -> None:
    (path / "management.token").write_text(f"{CANARY}\n")
    assert state.management_token() == CANARY
    (path / "management.token").write_text("canary")
    with pytest.raises(StateError, match=r"the management token in .* has 6 characters") as caught:
        state.management_token()
    assert "canary" not in str(caught.value)


def test_a_secret_file_is_read_stripped_and_only_when_it_is_a_plain_file(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(f" {CANARY}\n")
    assert read_secret_file(file, "the key") == CANARY
    file.write_bytes(b"x" * 70_000)
    with pytest.raises(StateError, match=r"the key cannot be read: .* has more than 65536 bytes"):
        read_secret_file(file, "the key")
    with pytest.raises(StateError, match=r"the key cannot be read: .* is not a plain file"):
        read_secret_file(tmp_path, "the key")
    with pytest.raises(StateError, match=r"the key cannot be read from .*: No such file or directory"):
        read_secret_file(tmp_path / "gone", "the key")


def test_no_repr_holds_a_secret(state: State, path: Path) -> None:
    keys = Keys(primary=CANARY, secondary=CANARY[::-1])
    shown = f"{keys!r} {state!r}"
    assert CANARY not in shown
    assert CANARY[::-1] not in shown
    assert str(path) in shown
