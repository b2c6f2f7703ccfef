"""What opens endpoints: their keys, and the secret that signs their tokens; sealed in the store.

A key that an operator brings stays where it is (a file, a variable): it is read when the endpoint is published, and
never kept. The keys made here stay beside it, and count again when the given one is taken back.
Errors: Problem for a caller who asks for what there is not; StateError for a given key that cannot be used.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from gateway.controlplane import keyring
from gateway.controlplane.documents import legible
from gateway.controlplane.keyring import EndpointSecrets, Keyring, Which
from gateway.controlplane.plan import Secrets
from gateway.controlplane.state import Keys, StateError, read_secret_file
from gateway.controlplane.store.database import Store
from gateway.controlplane.store.records import Kind, Resource
from gateway.controlplane.store.transaction import Transaction
from gateway.controlplane.yaml_types import OnlineEndpointYaml, SecretYaml
from gateway.credentials import SECRET_BYTES, digest, key_fault, make_secret, sign_token
from gateway.errors import Code, Problem
from gateway.resources import AuthMode, Endpoint, SecretSource

log = logging.getLogger(__name__)

TOKEN_SECRET = "token"  # noqa: S105 - the name that it is kept under


class _KeptBefore(msgspec.Struct, rename="camel"):
    """What of the file of an endpoint's keys is taken over."""

    primary_key: str | None = None
    secondary_key: str | None = None


class Vault:
    """Secrets of endpoints. Those with a `tx` are for work inside a transaction of the store."""

    def __init__(self, store: Store, ring: Keyring, environ: Mapping[str, str]) -> None:
        self._store = store
        self._ring = ring
        self._endpoints = EndpointSecrets(ring)
        self._environ = environ

    def provide(self, tx: Transaction, endpoint: str) -> None:
        """Keys for an endpoint that has none yet."""
        if tx.secret(EndpointSecrets.name(endpoint)) is None:
            self._put(tx, endpoint, keyring.make_keys())

    def prepare(self, tx: Transaction) -> int:
        """The secret that signs tokens, made once; and what an older master key sealed, sealed again: how many."""
        resealed = 0
        self.secret(tx, TOKEN_SECRET)
        for name in tx.secrets():
            sealed = tx.secret(name)
            if sealed is not None and self._ring.needs_resealing(sealed):
                tx.put_secret(name, self._ring.reseal(name, sealed))
                resealed += 1
        return resealed

    def secret(self, tx: Transaction, name: str) -> bytes:
        """A secret of the gateway's own, made at first need. For work that may write."""
        sealed = tx.secret(name)
        if sealed is None:
            sealed = self._ring.seal(name, make_secret())
            tx.put_secret(name, sealed)
        secret = self._ring.open(name, sealed)
        assert len(secret) == SECRET_BYTES
        return secret

    def sealed(self, tx: Transaction, endpoint: str) -> bytes | None:
        """The endpoint's keys as they are kept, for `restore`."""
        return tx.secret(EndpointSecrets.name(endpoint))

    def restore(self, tx: Transaction, endpoint: str, sealed: bytes) -> None:
        tx.put_secret(EndpointSecrets.name(endpoint), sealed)

    def forget(self, tx: Transaction, endpoint: str) -> None:
        tx.delete_secret(EndpointSecrets.name(endpoint))

    def regenerate(self, tx: Transaction, endpoint: Resource, which: Which, value: str | None) -> None:
        """A new key in place of one. Errors: Problem."""
        document = _document(endpoint)
        _need_mode(endpoint.name, document, "key")
        source = getattr(document.gateway.keys, which)
        if source is not None:
            raise Problem(
                Code.CONFLICT, f"the {which} key of {endpoint.name} comes from {_said(source)}; change it there"
            )
        self._put(tx, endpoint.ref.key, keyring.regenerate(self._kept(tx, endpoint.ref.key), which, value))

    def keys(self, tx: Transaction, endpoint: Resource) -> Keys:
        """Errors: Problem where the endpoint has no keys, StateError."""
        document = _document(endpoint)
        _need_mode(endpoint.name, document, "key")
        kept, given = self._kept(tx, endpoint.ref.key), document.gateway.keys
        return Keys(
            primary=self._key(_source(given.primary), kept.primary, f"the primary key of {endpoint.name}"),
            secondary=self._key(_source(given.secondary), kept.secondary, f"the secondary key of {endpoint.name}"),
        )

    def token(
        self, tx: Transaction, endpoint: Resource, now_s: float, lifetime_s: int | None = None
    ) -> dict[str, Any]:
        """A token as the contract's `token` operation answers it; by default it lives as the endpoint says."""
        document = _document(endpoint)
        _need_mode(endpoint.name, document, "aml_token")
        token = sign_token(
            endpoint.name, self._token_secret(tx), lifetime_s or document.gateway.token_lifetime_s, now_s
        )
        return {
            "accessToken": token.access_token,
            "expiryTimeUtc": token.expires_s,
            "refreshAfterTimeUtc": token.refresh_after_s,
            "tokenType": "Bearer",
        }

    async def secrets(self, endpoint: str, resource: Endpoint) -> Secrets:
        """What a snapshot needs to prove callers of this endpoint. Errors: StateError for a key that was given."""
        return await self._store.read(lambda tx: self.secrets_of(tx, endpoint, resource))

    def secrets_of(self, tx: Transaction, endpoint: str, resource: Endpoint) -> Secrets:
        match resource.auth_mode:
            case AuthMode.KEY:
                kept, given = self._kept(tx, endpoint), resource.keys
                keys = (
                    self._key(given.primary, kept.primary, f"the primary key of {resource.name}"),
                    self._key(given.secondary, kept.secondary, f"the secondary key of {resource.name}"),
                )
                return Secrets(key_digests=tuple(digest(key) for key in keys))
            case AuthMode.AML_TOKEN:
                return Secrets(token_secret=self._token_secret(tx))
            case AuthMode.AAD_TOKEN:
                return Secrets()

    def check_sources(self, document: OnlineEndpointYaml, existing: Resource | None) -> None:
        """Over the network nobody names a file or a variable of this machine. Errors: Problem."""
        before = _document(existing).gateway.keys if existing is not None else None
        keys = document.gateway.keys
        if (keys.primary or keys.secondary) and keys != before:
            raise Problem(
                Code.INVALID_INPUT,
                "gateway.keys names files or variables of the gateway's machine; it is accepted in a folder that the "
                "gateway itself reads (serve --apply). Use regenerateKeys to bring a key",
            )

    def adopt(self, tx: Transaction, state: Path) -> list[str]:
        """Take over the keys that an earlier version kept as files; the endpoints whose keys these are."""
        adopted = []
        for path in sorted((state / "keys").glob("*.json")):
            name = path.stem.lower()
            if tx.secret(EndpointSecrets.name(name)) is not None:
                continue
            try:
                found = msgspec.json.decode(path.read_bytes(), type=_KeptBefore)
            except (OSError, msgspec.DecodeError):
                # Without the cause: its text may quote the file.
                raise StateError(f"the file {path} is damaged; restore it, or delete it to have new keys") from None
            made = keyring.make_keys()
            keys = Keys(
                primary=found.primary_key or made.primary,
                secondary=found.secondary_key or made.secondary,
            )
            self._put(tx, name, keys)
            adopted.append(name)
        return adopted

    @staticmethod
    def remove_adopted(state: Path) -> None:
        """Call once `adopt` is committed: keys in the open go, and do not come back with an endpoint of that name."""
        for path in (state / "keys").glob("*.json"):
            try:
                path.unlink()
            except OSError as error:
                log.warning("%s holds keys that are kept elsewhere now, and cannot be removed: %s", path, error)

    def _kept(self, tx: Transaction, endpoint: str) -> Keys:
        sealed = tx.secret(EndpointSecrets.name(endpoint))
        if sealed is None:
            raise Problem(Code.NOT_FOUND, f"there are no keys of endpoint {endpoint}")
        return self._endpoints.open(endpoint, sealed)

    def _put(self, tx: Transaction, endpoint: str, keys: Keys) -> None:
        tx.put_secret(EndpointSecrets.name(endpoint), self._endpoints.seal(endpoint, keys))

    def _token_secret(self, tx: Transaction) -> bytes:
        sealed = tx.secret(TOKEN_SECRET)
        assert sealed is not None, "prepare() made it"
        return self._ring.open(TOKEN_SECRET, sealed)

    def _key(self, source: SecretSource | None, kept: str, what: str) -> str:
        if source is None:
            return kept
        if source.env is not None:
            found = self._environ.get(source.env)
            what = f"{what}, from the environment variable {source.env},"
            if found is None:
                raise StateError(f"{what} cannot be read: the variable is not set here")
        else:
            assert source.file is not None
            what = f"{what}, from the file {source.file},"
            found = read_secret_file(source.file, what)
        fault = key_fault(found.strip())
        if fault:
            raise StateError(f"{what} {fault}")
        return found.strip()


def _document(endpoint: Resource) -> OnlineEndpointYaml:
    document, _ = legible(Kind.ONLINE_ENDPOINT, endpoint.document)
    assert isinstance(document, OnlineEndpointYaml)
    return document


def _need_mode(name: str, document: OnlineEndpointYaml, mode: str) -> None:
    if document.auth_mode != mode:
        what = "keys" if mode == "key" else "tokens of ours"
        raise Problem(Code.INVALID_INPUT, f"endpoint {name} has no {what}: its auth_mode is {document.auth_mode}")


def _source(given: SecretYaml | None) -> SecretSource | None:
    if given is None:
        return None
    return SecretSource(file=Path(given.file) if given.file else None, env=given.env)


def _said(source: SecretYaml) -> str:
    return f"the file {source.file}" if source.file else f"the environment variable {source.env}"
