"""What opens endpoints: made once, given keys win and are never kept, sealed anew under a new master key."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.controlplane.keyring import MASTER_KEY, MASTER_KEY_OLD, WrongMasterKey, open_keyring
from gateway.controlplane.state import Keys, StateError
from gateway.controlplane.store.records import Resource
from gateway.controlplane.vault import Vault
from gateway.controlplane.yaml_types import EndpointGatewayYaml, KeysYaml, SecretYaml
from gateway.credentials import check_token, digest
from gateway.dataplane.authenticate import Authenticator
from gateway.errors import Code, Problem
from gateway.resources import AuthMode, Endpoint, KeySources, Oidc, SecretSource
from gateway.snapshot import AuthSpec
from tests.support.plane import ANN, Plane, endpoint, endpoint_ref

CANARY = "canary-key-0123456789"


def keys(plane: Plane, name: str = "digits") -> Keys:
    return plane.run(plane.control.keys(name))


def given_to(plane: Plane, **members: Any) -> Resource:
    """The endpoint with keys from elsewhere, as a folder gives them."""
    found = plane.need(endpoint_ref())
    document = {**found.document, "gateway": {"keys": members}}
    changed = replace(found, document=document, served=document)
    return plane.write(lambda tx: tx.put(changed, expected=found.version))


def test_keys_are_made_once_and_stay(plane: Plane) -> None:
    plane.put_endpoint()
    made = keys(plane)
    assert len({made.primary, made.secondary}) == 2
    plane.put_endpoint(tags={"a": "b"})
    plane.write(lambda tx: plane.vault.provide(tx, "digits"))
    assert keys(plane, "DIGITS") == made
    plane.put_endpoint("letters")
    assert keys(plane, "letters") != made
    plane.restart()
    assert keys(plane) == made


def test_given_keys_win_are_never_kept_and_made_ones_come_back(plane: Plane) -> None:
    plane.put_endpoint()
    made = keys(plane)
    file = plane.folder / "kéy"
    file.write_text(f"\n  {CANARY}-file \n")
    plane.environ["DIGITS_KEY"] = f" {CANARY}-env\n"
    plane.vault._environ = plane.environ
    given_to(plane, primary={"file": str(file)}, secondary={"env": "DIGITS_KEY"})
    assert keys(plane) == Keys(primary=f"{CANARY}-file", secondary=f"{CANARY}-env")
    for which, source in (("primary", f"the file {file}"), ("secondary", "the environment variable DIGITS_KEY")):
        with pytest.raises(
            Problem, match=f"the {which} key of digits comes from {source}; change it there"
        ) as caught:
            plane.run(plane.control.regenerate("digits", which, None, ANN))
        assert caught.value.code is Code.CONFLICT
    sealed = b"".join(one.read_bytes() for one in plane.folder.rglob("*") if one.is_file() and one != file)
    assert CANARY.encode() not in sealed
    given_to(plane)
    assert keys(plane) == made


def test_only_the_key_that_is_given_is_given(plane: Plane) -> None:
    plane.put_endpoint()
    made = keys(plane)
    plane.environ["DIGITS_KEY"] = CANARY
    plane.vault._environ = plane.environ
    given_to(plane, secondary={"env": "DIGITS_KEY"})
    assert keys(plane) == Keys(primary=made.primary, secondary=CANARY)
    plane.run(plane.control.regenerate("digits", "primary", None, ANN))
    assert keys(plane).primary != made.primary


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "cannot be read"),
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
    plane: Plane, value: str | None, said: str
) -> None:
    plane.put_endpoint()
    file = plane.folder / "key"
    if value is not None:
        file.write_text(value)
        plane.environ["KEY"] = value
    plane.vault._environ = plane.environ
    for source in ({"file": str(file)}, {"env": "KEY"}):
        given_to(plane, primary=source)
        with pytest.raises(Problem, match="the primary key of digits, from the") as caught:
            keys(plane)
        assert caught.value.code is Code.UNAVAILABLE
        assert said in caught.value.message
        assert "canary" not in caught.value.message


def test_over_the_network_nobody_names_a_file_or_a_variable(plane: Plane) -> None:
    plane.put_endpoint()
    (plane.folder / "key").write_text(CANARY)
    for source in ({"file": str(plane.folder / "key")}, {"file": "/etc/hostname"}, {"env": "HOME"}):
        for which in ("primary", "secondary"):
            document = endpoint(gateway=_gateway(which, source))
            with pytest.raises(Problem, match="Use regenerateKeys to bring a key"):
                plane.run(plane.control.put(endpoint_ref().kind, "", "digits", document, ANN))
    # What a folder gave may be sent back, as clients do who change something else.
    given_to(plane, primary={"file": str(plane.folder / "key")})
    plane.put_endpoint(gateway=_gateway("primary", {"file": str(plane.folder / "key")}), tags={"a": "b"})
    assert keys(plane).primary == CANARY
    plane.agree()


def _gateway(which: str, source: dict[str, str]) -> Any:
    return EndpointGatewayYaml(keys=KeysYaml(**{which: SecretYaml(**source)}))


def test_each_mode_has_what_proves_its_callers(plane: Plane) -> None:
    plane.put_endpoint()
    made = keys(plane)
    oidc = Oidc(issuer="https://issuer.example", audience="a")
    modes = [
        Endpoint(name="digits", auth_mode=mode, oidc=oidc)
        for mode in (AuthMode.KEY, AuthMode.AML_TOKEN, AuthMode.AAD_TOKEN)
    ]
    by_key, by_token, by_issuer = (plane.run(plane.vault.secrets("digits", one)) for one in modes)
    assert by_key.key_digests == (digest(made.primary), digest(made.secondary))
    assert (by_key.token_secret, len(by_token.token_secret), by_token.key_digests) == (b"", 32, ())
    assert (by_issuer.token_secret, by_issuer.key_digests) == (b"", ())
    given = Endpoint(name="digits", keys=KeySources(primary=SecretSource(env="GONE")))
    with pytest.raises(StateError, match="GONE, cannot be read: the variable is not set here"):
        plane.run(plane.vault.secrets("digits", given))
    with pytest.raises(Problem, match="there are no keys of endpoint letters"):
        plane.run(plane.vault.secrets("letters", Endpoint(name="letters")))


def test_a_token_is_the_contracts_and_opens_its_endpoint_alone(plane: Plane) -> None:
    plane.put_endpoint("Digits", auth_mode="aml_token")
    plane.put_endpoint("letters", auth_mode="aml_token")
    answer = plane.run(plane.control.token("digits"))
    secret = plane.scorers.serves.endpoints["digits"].auth.token_secret
    text = answer.pop("accessToken")
    now = int(plane.now_s)
    assert answer == {"expiryTimeUtc": now + 3600, "refreshAfterTimeUtc": now + 1800, "tokenType": "Bearer"}
    assert check_token(text.encode(), "Digits", secret, plane.now_s)
    own, other = (
        Authenticator(AuthSpec(mode="aml_token", token_secret=secret), name) for name in ("Digits", "letters")
    )
    own.authenticate(f"Bearer {text}".encode(), plane.now_s)
    with pytest.raises(Problem) as caught:
        other.authenticate(f"Bearer {text}".encode(), plane.now_s)
    assert caught.value.code is Code.FORBIDDEN
    found = plane.need(endpoint_ref())
    short = plane.read(lambda tx: plane.vault.token(tx, found, plane.now_s, 60))
    assert short["expiryTimeUtc"] == now + 60


def test_secrets_of_the_gateways_own_are_made_once(plane: Plane) -> None:
    first = plane.write(lambda tx: plane.vault.secret(tx, "links"))
    assert len(first) == 32
    assert plane.write(lambda tx: plane.vault.secret(tx, "links")) == first
    assert plane.write(lambda tx: plane.vault.secret(tx, "other")) != first
    plane.restart()
    assert plane.write(lambda tx: plane.vault.secret(tx, "links")) == first


def test_a_new_master_key_opens_nothing_before_the_old_one_is_beside_it(plane: Plane) -> None:
    plane.put_endpoint()
    made = keys(plane)
    old = (plane.folder / "master.key").read_text().strip()
    new = base64.urlsafe_b64encode(b"n" * 32).decode().rstrip("=")
    plane.environ[MASTER_KEY] = new
    plane.stop()
    with pytest.raises(WrongMasterKey):
        plane.open()
    plane.files.close()
    plane.store.close()
    plane.environ[MASTER_KEY_OLD] = old
    plane.open()
    plane.start()
    assert plane.write(plane.vault.prepare) == 0
    assert keys(plane) == made
    del plane.environ[MASTER_KEY_OLD]
    plane.restart()
    assert keys(plane) == made
    plane.agree()


def test_what_an_old_master_key_sealed_is_counted_once(plane: Plane) -> None:
    plane.put_endpoint()
    old = (plane.folder / "master.key").read_text().strip()
    environ = {MASTER_KEY: base64.urlsafe_b64encode(b"n" * 32).decode(), MASTER_KEY_OLD: old}
    vault = Vault(plane.store, open_keyring(plane.folder, environ), {})
    assert plane.write(vault.prepare) == 2
    assert plane.write(vault.prepare) == 0


# ---- keys that an earlier version kept in files ----


def old_keys(plane: Plane, name: str, **members: str) -> Path:
    folder = plane.folder / "keys"
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps({"name": name, "authMode": "key", **members}))
    return path


def test_old_keys_are_taken_over_once_and_their_files_go(plane: Plane) -> None:
    plane.put_endpoint("letters")
    kept = keys(plane, "letters")
    old_keys(plane, "digits", primaryKey="p" * 20, secondaryKey="s" * 20)
    old_keys(plane, "half", secondaryKey="h" * 20)
    old_keys(plane, "letters", primaryKey="x" * 20)
    assert plane.write(lambda tx: plane.vault.adopt(tx, plane.folder)) == ["digits", "half"]
    plane.vault.remove_adopted(plane.folder)
    assert list((plane.folder / "keys").iterdir()) == []
    plane.put_endpoint()
    assert keys(plane) == Keys(primary="p" * 20, secondary="s" * 20)
    assert keys(plane, "letters") == kept
    plane.put_endpoint("half")
    assert keys(plane, "half").secondary == "h" * 20
    # They do not come back with another endpoint of that name.
    plane.delete(endpoint_ref())
    assert plane.write(lambda tx: plane.vault.adopt(tx, plane.folder)) == []
    plane.put_endpoint()
    assert keys(plane).primary != "p" * 20


def test_a_damaged_file_of_keys_is_named_and_not_shown(plane: Plane) -> None:
    for text in ("", "{", '{"primaryKey": 17, "x": "canary"}', "\xff canary"):
        path = old_keys(plane, "digits")
        path.write_bytes(text.encode("latin-1"))
        with pytest.raises(StateError, match=r"digits\.json is damaged; restore it, or delete it") as caught:
            plane.write(lambda tx: plane.vault.adopt(tx, plane.folder))
        assert "canary" not in str(caught.value)


def test_a_file_of_keys_that_cannot_be_removed_is_a_warning(plane: Plane, caplog: pytest.LogCaptureFixture) -> None:
    (plane.folder / "keys" / "digits.json").mkdir(parents=True)
    plane.vault.remove_adopted(plane.folder)
    assert "keys that are kept elsewhere now, and cannot be removed" in caplog.text
