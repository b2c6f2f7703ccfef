"""Who may manage, with the real parts: tokens in a database, people of an issuer that is reached over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.controlplane.authorize import Actor, Doorkeeper, Role, make_token
from gateway.controlplane.people import People
from gateway.controlplane.store.database import Store
from gateway.controlplane.store.records import ManagementToken
from gateway.errors import Code, Problem
from gateway.snapshot import OidcSpec
from tests.support.issuer import Issuer
from tests.support.tokens import AUDIENCE


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    found = Store.open(f"sqlite:///{tmp_path / 'gateway.db'}")
    yield found
    found.close()


def doorkeeper_of(store: Store, people: People | None = None) -> Doorkeeper:
    async def find(digest: bytes) -> ManagementToken | None:
        return await store.read(lambda tx: tx.token(digest))

    return Doorkeeper("first-start-token", find, people=people)


async def is_refused(doorkeeper: Doorkeeper, credential: str, code: Code = Code.UNAUTHENTICATED) -> bool:
    with pytest.raises(Problem) as caught:
        await doorkeeper.identify(f"Bearer {credential}", "", "")
    return caught.value.code is code


def test_a_stored_token_works_until_it_is_deleted(store: Store) -> None:
    async def story() -> None:
        doorkeeper = doorkeeper_of(store)
        unknown, _ = make_token("ci", Role.OPERATOR, None, "management.token", 1000.0)
        assert await is_refused(doorkeeper, unknown)
        text, record = make_token("ci", Role.OPERATOR, None, "management.token", 1000.0)
        await store.write(lambda tx: tx.add_token(record))
        actor = await doorkeeper.identify(f"Bearer {text}", "127.0.0.1", "r")
        assert actor == Actor(name="token:ci", role=Role.OPERATOR, source="127.0.0.1", request_id="r")
        assert await store.write(lambda tx: tx.delete_token("ci"))
        doorkeeper.forget()
        assert await is_refused(doorkeeper, text)

    asyncio.run(story())


def test_a_person_is_believed_by_the_keys_that_the_issuer_publishes(store: Store) -> None:
    with Issuer("first") as issuer:
        spec = OidcSpec(issuer=issuer.url, audience=AUDIENCE, jwks_uri="", algorithms=("RS256",), required_roles=())

        async def story() -> None:
            doorkeeper = doorkeeper_of(store, People(spec))
            actor = await doorkeeper.identify(f"Bearer {issuer.token(roles=['reader', 'admin'])}", "", "")
            assert (actor.name, actor.role) == ("person:somebody", Role.ADMIN)
            assert await is_refused(doorkeeper, issuer.token(roles=["guest"]), Code.FORBIDDEN)
            assert await is_refused(doorkeeper, issuer.token(roles=["admin"], aud="elsewhere"))
            assert await is_refused(doorkeeper, issuer.token(roles=["admin"], exp=1))
            assert await is_refused(doorkeeper, issuer.token("stranger", roles=["admin"]))
            await doorkeeper.close()

        asyncio.run(story())
    assert issuer.fetched == ["/.well-known/openid-configuration", "/keys"]
