"""Whatever is sealed opens again, and nothing else does: no altered byte, no other name, no other master key."""

from __future__ import annotations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from gateway.controlplane.keyring import Damaged, EndpointSecrets, Keyring, WrongMasterKey, regenerate, set_key
from gateway.controlplane.state import Keys

FIRST, SECOND = bytes(range(32)), bytes(range(32, 64))
names = st.text(max_size=40, alphabet=st.characters(exclude_categories=["Cs"]))
masters = st.binary(min_size=32, max_size=32)
keys = st.text(st.characters(min_codepoint=ord("!"), max_codepoint=ord("~")), min_size=16, max_size=60)


@given(names, st.binary(max_size=300), masters)
def test_any_data_opens_under_its_name(name: str, data: bytes, master: bytes) -> None:
    keyring = Keyring(master)
    assert keyring.open(name, keyring.seal(name, data)) == data


@settings(max_examples=20)
@given(st.binary(max_size=20))
def test_any_flipped_bit_is_damage(data: bytes) -> None:
    keyring = Keyring(FIRST, SECOND)
    sealed = keyring.seal("n", data)
    for place in range(len(sealed) * 8):
        altered = bytearray(sealed)
        altered[place // 8] ^= 1 << place % 8
        with pytest.raises(Damaged):
            keyring.open("n", bytes(altered))


@given(st.binary(max_size=200))
def test_any_bytes_that_were_not_sealed_are_damage(data: bytes) -> None:
    with pytest.raises(Damaged):
        Keyring(FIRST).open("n", data)


@given(names, names)
def test_no_other_name_opens_it(name: str, other: str) -> None:
    assume(name != other)
    keyring = Keyring(FIRST)
    with pytest.raises(Damaged):
        keyring.open(other, keyring.seal(name, b"secret"))


@given(masters, masters)
def test_no_other_master_key_opens_it(master: bytes, other: bytes) -> None:
    assume(master != other)
    with pytest.raises(WrongMasterKey):
        Keyring(other).open("n", Keyring(master).seal("n", b"secret"))


@given(st.lists(st.tuples(st.sampled_from(["primary", "secondary"]), st.none() | keys), max_size=8), keys, keys)
def test_a_change_of_one_key_never_touches_the_other(changes: list[tuple[str, str | None]], p: str, s: str) -> None:
    endpoints = EndpointSecrets(Keyring(FIRST))
    now = Keys(primary=p, secondary=s)
    for which, value in changes:
        before = now
        if which == "primary":
            now = regenerate(now, "primary", value)
            assert now.secondary == before.secondary
            assert now.primary == value or now.primary not in (before.primary, value)
        else:
            now = set_key(now, "secondary", value or "k" * 16)
            assert now == Keys(primary=before.primary, secondary=value or "k" * 16)
        assert endpoints.open("e", endpoints.seal("e", now)) == now
