"""The state folder: private, held by one gateway, with keys that stay, and messages that never show a secret."""

from __future__ import annotations

import json
import os
import stat
import time
from pathlib import Path

import pytest

from gateway.controlplane import state as module
from gateway.controlplane.state import State, StateError, issue_token, open_state, read_keys
from gateway.credentials import check_token
from gateway.resources import AuthMode, KeySources, SecretSource
from tests.support.tokens import NOW_S

CANARY = "canary-canary-canary"
NONE = KeySources()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "state"


@pytest.fixture
def state(path: Path) -> State:
    return open_state(path)


def by_env(name: str, other: str | None = None) -> KeySources:
    second = None if other is None else SecretSource(env=other)
    return KeySources(primary=SecretSource(env=name), secondary=second)


def by_file(path: Path) -> KeySources:
    return KeySources(primary=SecretSource(file=path))


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_folder_and_its_files_are_private(state: State, path: Path) -> None:
    state.keys_for("digits", NONE, {})
    state.token_secret()
    state.management_token()
    assert mode_of(path) == mode_of(path / "keys") == 0o700
    files = [found for found in path.rglob("*") if found.is_file()]
    assert {found.name for found in files} == {"gateway.lock", "digits.json", "token.key", "management.token"}
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


def test_keys_are_made_once_and_stay(state: State, path: Path) -> None:
    keys = state.keys_for("Digits", NONE, {})
    assert len({keys.primary, keys.secondary}) == 2
    assert state.keys_for("digits", NONE, {}) == keys
    assert read_keys(path, "DIGITS") == keys
    state.close()
    again = open_state(path)
    assert again.keys_for("Digits", NONE, {}) == keys
    assert again.keys_for("letters", NONE, {}) != keys


def test_an_unchanged_record_is_not_written_again(state: State, path: Path) -> None:
    state.keys_for("digits", NONE, {})
    before = (path / "keys" / "digits.json").stat().st_ino
    state.keys_for("digits", NONE, {})
    state.record_endpoint("digits", AuthMode.KEY, 3600)
    assert (path / "keys" / "digits.json").stat().st_ino == before


def test_given_keys_win_are_never_written_and_made_ones_come_back(state: State, path: Path, tmp_path: Path) -> None:
    made = state.keys_for("digits", NONE, {})
    (tmp_path / "kéy").write_text(f"\n  {CANARY}-file \n")
    sources = KeySources(primary=SecretSource(file=tmp_path / "kéy"), secondary=SecretSource(env="KEY"))
    env = {"KEY": f"{CANARY}-env"}
    keys = state.keys_for("digits", sources, env)
    assert (keys.primary, keys.secondary) == (f"{CANARY}-file", f"{CANARY}-env")
    assert read_keys(path, "digits", env) == keys
    assert all(CANARY not in found.read_text() for found in path.rglob("*") if found.is_file())
    assert state.keys_for("digits", NONE, {}) == made


def test_no_key_is_made_where_one_is_given(state: State, path: Path) -> None:
    keys = state.keys_for("digits", by_env("KEY"), {"KEY": CANARY})
    assert keys.primary == CANARY
    record = json.loads((path / "keys" / "digits.json").read_text())
    assert record == {
        "name": "digits",
        "secondaryKey": keys.secondary,
        "primarySource": {"env": "KEY"},
    }
    second = state.keys_for("digits", NONE, {})
    assert second.secondary == keys.secondary
    assert second.primary != CANARY


def test_a_relative_file_is_found_from_another_folder(
    state: State, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "key").write_text(CANARY)
    monkeypatch.chdir(tmp_path)
    state.keys_for("digits", by_file(Path("key")), {})
    monkeypatch.chdir("/")
    assert read_keys(path, "digits").primary == CANARY


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "environment variable KEY, which is not set"),
        ("", "is empty"),
        ("   \n", "is empty"),
        ("canary", "has 6 characters; 16 to 4096 are accepted"),
        ("canary" * 700, "has 4200 characters"),
        (f"{CANARY} {CANARY}", "other than printable ASCII without spaces"),
        (f"{CANARY}\x07", "other than printable ASCII"),
        (f"{CANARY}\n{CANARY}", "other than printable ASCII"),
        (f"{CANARY}é", "other than printable ASCII"),
    ],
)
def test_a_given_key_that_cannot_be_used_is_described_and_not_shown(
    state: State, path: Path, tmp_path: Path, value: str | None, said: str
) -> None:
    attempts = [(by_env("KEY"), {} if value is None else {"KEY": value})]
    if value is not None:
        (tmp_path / "key").write_text(value)
        attempts.append((by_file(tmp_path / "key"), {}))
    for sources, env in attempts:
        with pytest.raises(StateError, match=said) as caught:
            state.keys_for("digits", sources, env)
        assert "the primary key of digits" in str(caught.value)
        assert "canary" not in str(caught.value)
    # What did not work is not noted either.
    assert not (path / "keys").exists()


def test_keys_of_the_shortest_and_longest_length_are_taken(state: State) -> None:
    env = {"SHORT": "k" * 16, "LONG": "k" * 4096}
    keys = state.keys_for("digits", by_env("SHORT", "LONG"), env)
    assert (len(keys.primary), len(keys.secondary)) == (16, 4096)


def test_a_key_file_that_is_missing_or_no_plain_file_is_named(state: State, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "huge").write_bytes(b"k" * 70_000)
    for name, said in (
        ("gone", "No such file"),
        ("pipe", "not a plain file"),
        (".", "not a plain file"),
        ("huge", "more than 65536 bytes"),
    ):
        with pytest.raises(StateError, match=f"the primary key of digits.*{said}"):
            state.keys_for("digits", by_file(tmp_path / name), {})


def test_a_source_that_names_nothing_is_refused(state: State) -> None:
    with pytest.raises(StateError, match="neither a file nor an environment variable"):
        state.keys_for("digits", KeySources(primary=SecretSource()), {})


@pytest.mark.parametrize("name", ["", "../etc/passwd", "a/b", "a.b", "1a", "a-", "a" * 65, "a\n", "bü"])
def test_a_name_that_is_no_endpoints_never_becomes_a_path(state: State, path: Path, name: str) -> None:
    with pytest.raises(StateError, match="is not an endpoint's name"):
        state.keys_for(name, NONE, {})
    with pytest.raises(StateError, match="is not an endpoint's name"):
        read_keys(path, name)


def test_asking_for_an_endpoint_that_was_never_served_says_which_were(state: State, path: Path) -> None:
    with pytest.raises(StateError, match="nothing of endpoint digits; no endpoint was ever served"):
        read_keys(path, "digits")
    state.keys_for("letters", NONE, {})
    state.keys_for("Apes", NONE, {})
    with pytest.raises(StateError, match="nothing of endpoint digits; it knows apes, letters"):
        read_keys(path, "digits")


def test_keys_given_by_a_variable_of_the_gateways_process_need_that_variable(state: State, path: Path) -> None:
    state.keys_for("digits", by_env("KEY"), {"KEY": CANARY})
    with pytest.raises(StateError, match="environment variable KEY, which is not set here"):
        read_keys(path, "digits")


def test_an_endpoint_that_takes_tokens_has_no_keys(state: State, path: Path) -> None:
    state.record_endpoint("Digits", AuthMode.AML_TOKEN, 60)
    with pytest.raises(StateError, match="endpoint Digits has no keys: its auth_mode is aml_token"):
        read_keys(path, "digits")
    state.record_endpoint("Digits", AuthMode.KEY, 60)
    with pytest.raises(StateError, match="primary key of Digits has not been made yet"):
        read_keys(path, "digits")


@pytest.mark.parametrize(
    "text", ["", "{", '{"name": "digits", "canary": 1}', '{"name": "digits", "authMode": "canary"}', "\xff"]
)
def test_a_damaged_record_is_named_and_not_shown_and_not_replaced(state: State, path: Path, text: str) -> None:
    keys = path / "keys"
    keys.mkdir()
    (keys / "digits.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(StateError, match=r"digits\.json is damaged") as caught:
        state.keys_for("digits", NONE, {})
    assert "canary" not in str(caught.value)
    assert (keys / "digits.json").read_bytes() == text.encode("latin-1")


def test_a_write_that_fails_keeps_the_old_file_and_leaves_nothing_behind(
    state: State, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = state.keys_for("digits", NONE, {})

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StateError, match=r"digits\.json cannot be written: No space left on device"):
        state.keys_for("digits", by_env("KEY"), {"KEY": CANARY})
    assert [found.name for found in (path / "keys").iterdir()] == ["digits.json"]
    assert read_keys(path, "digits") == made


def test_a_folder_that_may_not_be_looked_into_is_a_sentence(
    state: State, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(_: Path) -> os.stat_result:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "lstat", denied)
    with pytest.raises(StateError, match=r"digits\.json cannot be read: Permission denied"):
        read_keys(path, "digits")


def test_secrets_are_made_once_and_stay(path: Path) -> None:
    first = open_state(path)
    secret, token = first.token_secret(), first.management_token()
    assert (len(secret), len(token)) == (32, 43)
    assert (first.token_secret(), first.management_token()) == (secret, token)
    first.close()
    second = open_state(path)
    assert (second.token_secret(), second.management_token()) == (secret, token)


@pytest.mark.parametrize("text", ["", "canary", "canary!" * 7, "A" * 44, "é" * 43, "A" * 20])
def test_a_damaged_token_secret_is_named_and_not_shown(state: State, path: Path, text: str) -> None:
    (path / "token.key").write_text(text)
    with pytest.raises(
        StateError, match=r"token\.key does not hold 32 bytes as base64url text; restore it"
    ) as caught:
        state.token_secret()
    assert "canary" not in str(caught.value)


def test_a_management_token_of_the_operators_own_is_taken_when_it_is_long_enough(state: State, path: Path) -> None:
    (path / "management.token").write_text(f"{CANARY}\n")
    assert state.management_token() == CANARY
    (path / "management.token").write_text("canary")
    with pytest.raises(StateError, match=r"the management token in .* has 6 characters") as caught:
        state.management_token()
    assert "canary" not in str(caught.value)


def test_a_token_is_issued_beside_a_running_gateway_in_the_contracts_form(state: State, path: Path) -> None:
    state.record_endpoint("Digits", AuthMode.AML_TOKEN, 600)
    secret = state.token_secret()
    answer = issue_token(path, "digits", None, NOW_S)
    token = answer.pop("accessToken")
    assert answer == {
        "expiryTimeUtc": NOW_S + 600,
        "refreshAfterTimeUtc": NOW_S + 300,
        "tokenType": "Bearer",
    }
    assert isinstance(token, str)
    assert check_token(token.encode(), "Digits", secret, NOW_S)
    assert issue_token(path, "digits", 60, NOW_S)["expiryTimeUtc"] == NOW_S + 60


def test_a_token_of_now_lasts_from_now(state: State, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state.record_endpoint("digits", AuthMode.AML_TOKEN, 600)
    state.token_secret()
    monkeypatch.setattr(time, "time", lambda: NOW_S + 0.5)
    assert issue_token(path, "digits")["expiryTimeUtc"] == NOW_S + 600


@pytest.mark.parametrize("mode", [AuthMode.KEY, AuthMode.AAD_TOKEN])
def test_no_token_is_issued_for_an_endpoint_that_does_not_take_them(state: State, path: Path, mode: AuthMode) -> None:
    state.record_endpoint("digits", mode, 600)
    state.token_secret()
    with pytest.raises(StateError, match=f"takes no tokens of ours: its auth_mode is {mode.value}"):
        issue_token(path, "digits", 60, NOW_S)


def test_no_token_is_issued_without_a_secret_or_a_lifetime(state: State, path: Path) -> None:
    state.record_endpoint("digits", AuthMode.AML_TOKEN, 600)
    with pytest.raises(StateError, match=r"token\.key cannot be read .*No such file"):
        issue_token(path, "digits", 60, NOW_S)
    state.token_secret()
    with pytest.raises(StateError, match="at least 1 second, not 0"):
        issue_token(path, "digits", 0, NOW_S)
    with pytest.raises(StateError, match="nothing of endpoint letters"):
        issue_token(path, "letters", 60, NOW_S)


def test_no_repr_holds_a_secret(state: State, path: Path) -> None:
    keys = state.keys_for("digits", NONE, {})
    record = module._need_record(path, "digits")
    shown = f"{keys!r} {state!r} {record!r}"
    assert keys.primary not in shown
    assert keys.secondary not in shown
    assert "digits" in shown
    assert str(path) in shown
