"""A sealed secret opens under its name and its master key only, and nothing that is said of one shows it."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import stat
from pathlib import Path

import pytest

from gateway.controlplane.keyring import (
    Damaged,
    EndpointSecrets,
    Keyring,
    KeyringError,
    WrongMasterKey,
    generate,
    make_keys,
    open_keyring,
    regenerate,
    set_key,
)
from gateway.controlplane.state import Keys
from gateway.errors import Code, Problem

FIRST, SECOND, THIRD = (bytes([n]) * 32 for n in (1, 2, 3))


def text(master: bytes) -> str:
    return base64.urlsafe_b64encode(master).decode().rstrip("=")


def summed(data: bytes) -> bytes:
    return data + hashlib.sha256(data).digest()[:8]


def fault(state: Path, environ: dict[str, str] | None = None, *, may_make: bool = True) -> str:
    with pytest.raises(KeyringError) as caught:
        open_keyring(state, environ or {}, may_make=may_make)
    return str(caught.value)


# Sealing


def test_what_was_sealed_opens_under_its_name() -> None:
    keyring = Keyring(FIRST)
    assert keyring.open("keys/digits", keyring.seal("keys/digits", b"secret")) == b"secret"
    assert keyring.open("", keyring.seal("", b"")) == b""


def test_a_sealed_secret_shows_nothing_and_is_never_the_same() -> None:
    keyring = Keyring(FIRST)
    sealed = {keyring.seal("n", b"secret" * 9) for _ in range(50)}
    assert len(sealed) == 50
    assert len({one[9:21] for one in sealed}) == 50
    assert not any(b"secret" in one for one in sealed)


def test_the_layout_is_the_one_that_is_documented() -> None:
    sealed = Keyring(FIRST).seal("n", b"secret")
    assert sealed[0] == 1
    assert sealed[1:9] == hashlib.sha256(FIRST).digest()[:8]
    assert len(sealed) == 1 + 8 + 12 + 6 + 16 + 8
    assert summed(sealed[:-8]) == sealed


def test_another_master_key_is_told_from_damage_and_neither_key_is_shown() -> None:
    sealed = Keyring(FIRST).seal("keys/digits", b"secret")
    with pytest.raises(WrongMasterKey) as caught:
        Keyring(SECOND, THIRD).open("keys/digits", sealed)
    said = str(caught.value)
    for master in (FIRST, SECOND, THIRD):
        assert hashlib.sha256(master).hexdigest()[:16] in said
        assert text(master) not in said
    assert "'keys/digits'" in said
    assert "GATEWAY_MASTER_KEY_OLD" in said


def test_another_name_opens_nothing() -> None:
    keyring = Keyring(FIRST)
    with pytest.raises(Damaged, match=r"'keys/b' was altered, or sealed under another name"):
        keyring.open("keys/b", keyring.seal("keys/a", b"secret"))


def test_a_change_that_was_made_to_look_whole_is_damage() -> None:
    keyring = Keyring(FIRST)
    sealed = bytearray(keyring.seal("n", b"secret"))
    sealed[25] ^= 1
    with pytest.raises(Damaged, match="was altered"):
        keyring.open("n", summed(bytes(sealed[:-8])))


def test_another_format_is_named() -> None:
    keyring = Keyring(FIRST)
    with pytest.raises(Damaged, match="has format 2; this version reads format 1"):
        keyring.open("n", summed(b"\x02" + keyring.seal("n", b"secret")[1:-8]))


@pytest.mark.parametrize("length", [0, 1, 44])
def test_what_is_cut_short_is_damage(length: int) -> None:
    keyring = Keyring(FIRST)
    with pytest.raises(Damaged, match=f"has {length} bytes; a sealed one has 45 or more"):
        keyring.open("n", keyring.seal("n", b"secret")[:length])


def test_a_damaged_secret_is_said_to_be_so_even_where_its_key_is_unknown() -> None:
    sealed = bytearray(Keyring(FIRST).seal("n", b"secret"))
    sealed[3] ^= 1
    with pytest.raises(Damaged, match="is damaged; restore"):
        Keyring(SECOND).open("n", bytes(sealed))


def test_a_keyring_never_shows_its_keys() -> None:
    keyring = Keyring(FIRST, SECOND)
    assert repr(keyring) == f"<Keyring {hashlib.sha256(FIRST).hexdigest()[:16]}, 1 old>"
    assert not hasattr(keyring, "__dict__")


@pytest.mark.parametrize("master", [b"", bytes(31), bytes(33)])
def test_a_master_key_has_32_bytes(master: bytes) -> None:
    with pytest.raises(KeyringError, match=f"has {len(master)} bytes; accepted: 32"):
        Keyring(master)


# Rotation


def test_an_old_master_key_opens_and_a_new_one_seals() -> None:
    sealed = Keyring(FIRST).seal("n", b"secret")
    both = Keyring(SECOND, FIRST)
    assert both.open("n", sealed) == b"secret"
    assert both.needs_resealing(sealed)
    fresh = both.reseal("n", sealed)
    assert not both.needs_resealing(fresh)
    assert Keyring(SECOND).open("n", fresh) == b"secret"
    with pytest.raises(WrongMasterKey):
        Keyring(FIRST).open("n", fresh)


def test_one_key_given_as_both_is_no_rotation() -> None:
    keyring = Keyring(FIRST, FIRST)
    assert repr(keyring).endswith(", 0 old>")
    assert not keyring.needs_resealing(keyring.seal("n", b""))


# Where the master key is


def test_the_first_start_makes_a_private_file_and_the_next_reads_it(tmp_path: Path) -> None:
    state = tmp_path / "new"
    sealed = open_keyring(state, {}).seal("n", b"secret")
    path = state / "master.key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}\n", path.read_text())
    assert [one.name for one in state.iterdir()] == ["master.key"]
    assert open_keyring(state, {}, may_make=False).open("n", sealed) == b"secret"


def test_the_environment_gives_a_master_key_and_no_file_is_made(tmp_path: Path) -> None:
    sealed = Keyring(FIRST).seal("n", b"secret")
    for given in (text(FIRST), text(FIRST) + "=", f" {text(FIRST)}\n"):
        assert open_keyring(tmp_path, {"GATEWAY_MASTER_KEY": given}).open("n", sealed) == b"secret"
    assert list(tmp_path.iterdir()) == []


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    open_keyring(tmp_path, {})
    sealed = open_keyring(tmp_path, {"GATEWAY_MASTER_KEY": text(FIRST)}).seal("n", b"secret")
    assert Keyring(FIRST).open("n", sealed) == b"secret"


def test_the_environment_gives_the_old_key_beside_file_or_variable(tmp_path: Path) -> None:
    sealed = Keyring(FIRST).seal("n", b"secret")
    old = {"GATEWAY_MASTER_KEY_OLD": text(FIRST)}
    assert open_keyring(tmp_path, old).open("n", sealed) == b"secret"
    assert open_keyring(tmp_path, old | {"GATEWAY_MASTER_KEY": text(SECOND)}).needs_resealing(sealed)


def test_where_secrets_exist_no_master_key_is_made(tmp_path: Path) -> None:
    said = fault(tmp_path, may_make=False)
    assert "GATEWAY_MASTER_KEY is not set and" in said
    assert "restore the file, or set the variable" in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("variable", ["GATEWAY_MASTER_KEY", "GATEWAY_MASTER_KEY_OLD"])
@pytest.mark.parametrize(
    "given",
    [
        "",
        "   ",
        "changeme-changeme",
        text(FIRST)[:-1],
        text(FIRST) + "A",
        text(FIRST) + "==",
        text(FIRST)[:-1] + "F",
        text(FIRST)[:-1] + "+",
        "ä" * 43,
    ],
)
def test_a_variable_that_is_no_master_key_is_refused_and_not_shown(variable: str, given: str, tmp_path: Path) -> None:
    said = fault(tmp_path, {variable: given})
    assert f"the environment variable {variable} does not hold a master key" in said
    assert f"found {len(given.strip())} characters; accepted: 32 bytes as base64url" in said
    assert not given.strip() or given not in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", ["", "short", text(FIRST) + text(FIRST), "x" * 9000, "\xff\x00"])
def test_a_damaged_file_is_refused_not_shown_and_not_replaced(content: str, tmp_path: Path) -> None:
    path = tmp_path / "master.key"
    path.write_text(content, encoding="latin-1")
    path.chmod(0o600)
    said = fault(tmp_path)
    assert f"the file {path} does not hold a master key" in said
    assert "restore it; without it nothing that it sealed can be opened" in said
    assert not content or content not in said
    assert path.read_text(encoding="latin-1") == content


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601, 0o666])
def test_a_file_that_others_may_use_is_refused(mode: int, tmp_path: Path) -> None:
    open_keyring(tmp_path, {})
    path = tmp_path / "master.key"
    path.chmod(mode)
    assert f"other users may use the master key {path}: its mode is {mode:04o}; give it mode 0600" in fault(tmp_path)


def test_a_file_that_only_the_owner_may_read_is_fine(tmp_path: Path) -> None:
    open_keyring(tmp_path, {})
    (tmp_path / "master.key").chmod(0o400)
    open_keyring(tmp_path, {})


def test_a_file_of_somebody_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_keyring(tmp_path, {})
    owner = (tmp_path / "master.key").stat()
    stranger = os.stat_result((*owner[:4], 4711, *owner[5:]))
    monkeypatch.setattr(os, "fstat", lambda _: stranger)
    assert "belongs to user 4711, and the gateway runs as" in fault(tmp_path)


def test_what_is_no_plain_file_is_refused_without_waiting(tmp_path: Path) -> None:
    path = tmp_path / "master.key"
    os.mkfifo(path, 0o600)
    assert f"{path} is not a plain file" in fault(tmp_path)
    path.unlink()
    path.mkdir(mode=0o700)
    assert f"{path} is not a plain file" in fault(tmp_path)


def test_a_link_is_followed_and_one_that_leads_nowhere_is_not_replaced(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    open_keyring(elsewhere, {})
    state = tmp_path / "state"
    state.mkdir()
    (state / "master.key").symlink_to(elsewhere / "master.key")
    assert repr(open_keyring(state, {})) == repr(open_keyring(elsewhere, {}))
    (elsewhere / "master.key").unlink()
    assert "cannot be read from" in fault(state)
    assert (state / "master.key").is_symlink()


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.touch()
    assert f"the master key cannot be written to {in_the_way / 'master.key'}: " in fault(in_the_way)


# The keys of endpoints


def test_the_keys_of_an_endpoint_are_one_sealed_record() -> None:
    keyring = Keyring(FIRST)
    endpoints = EndpointSecrets(keyring)
    keys = make_keys()
    sealed = endpoints.seal("digits", keys)
    assert endpoints.name("digits") == "keys/digits"
    assert endpoints.open("digits", sealed) == keys
    assert keyring.open("keys/digits", sealed).startswith(b'{"primary":"')
    with pytest.raises(Damaged):
        endpoints.open("other", sealed)


@pytest.mark.parametrize("data", [b"", b"{}", b'{"primary":"aaaaaaa"}', b'{"primary":"a","secondary":"b","c":1}'])
def test_a_record_that_holds_no_two_keys_is_damage_and_not_shown(data: bytes) -> None:
    keyring = Keyring(FIRST)
    with pytest.raises(Damaged, match=r"^the secret 'keys/digits' does not hold a primary and a secondary key$"):
        EndpointSecrets(keyring).open("digits", keyring.seal("keys/digits", data))


def test_made_keys_are_long_and_differ() -> None:
    keys = make_keys()
    assert len({keys.primary, keys.secondary, make_keys().primary}) == 3
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{43}", key) for key in (keys.primary, keys.secondary))


KEYS = Keys(primary="p" * 20, secondary="s" * 20)


def test_a_new_key_leaves_the_other_as_it_is() -> None:
    fresh = generate(KEYS, "primary")
    assert fresh.primary not in (KEYS.primary, KEYS.secondary)
    assert fresh.secondary == KEYS.secondary
    fresh = generate(KEYS, "secondary")
    assert fresh.secondary not in (KEYS.primary, KEYS.secondary)
    assert fresh.primary == KEYS.primary


def test_a_chosen_key_leaves_the_other_as_it_is() -> None:
    assert set_key(KEYS, "primary", "x" * 16) == Keys(primary="x" * 16, secondary=KEYS.secondary)
    assert set_key(KEYS, "secondary", "x" * 4096) == Keys(primary=KEYS.primary, secondary="x" * 4096)


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("", "is empty"),
        ("short-and-known", "has 15 characters; 16 to 4096 are accepted"),
        ("x" * 4097, "has 4097 characters"),
        ("with a space in it", "printable ASCII without spaces"),
        ("ümlaut-ümlaut-ümlaut", "printable ASCII"),
        ("\ud800" * 20, "printable ASCII"),
        ("line\nline-line-line", "printable ASCII"),
    ],
)
def test_a_chosen_key_that_is_none_is_refused_and_not_shown(value: str, why: str) -> None:
    for change in (set_key, regenerate):
        with pytest.raises(Problem) as caught:
            change(KEYS, "primary", value)
        assert caught.value.code is Code.INVALID_INPUT
        assert caught.value.message.startswith("the primary key cannot be set: the value given ")
        assert why in caught.value.message
        assert not value or value not in caught.value.message


def test_regenerate_makes_a_key_where_none_or_the_present_one_is_sent_along() -> None:
    for value in (None, KEYS.secondary):
        fresh = regenerate(KEYS, "secondary", value)
        assert fresh.primary == KEYS.primary
        assert len(fresh.secondary) == 43
    assert regenerate(KEYS, "secondary", "c" * 30) == Keys(primary=KEYS.primary, secondary="c" * 30)
    assert regenerate(KEYS, "primary", KEYS.secondary).primary == KEYS.secondary
