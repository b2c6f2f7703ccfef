"""The store against a dictionary: whatever is done to both, in whatever order, they hold the same."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.controlplane.store import rows
from gateway.controlplane.store.database import Store, VersionConflict
from gateway.controlplane.store.records import AssetFile, Kind, Ref, Resource, State
from gateway.controlplane.store.transaction import Transaction, _end_of
from tests.support.stores import read, resource, wipe, write

# One store serves all examples; each begins by emptying it.
SHARED = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
DOCUMENTS = st.dictionaries(st.text(), JSON, max_size=4)
TIMES = st.floats(min_value=-1e12, max_value=1e12)
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
KEYS = st.sampled_from(["a", "b", "c"])
# What is done: to which resource, and whether the version that is demanded is the right one.
STEPS = st.lists(
    st.tuples(st.sampled_from(["make", "change", "delete", "abort"]), KEYS, KEYS, st.booleans()), max_size=25
)


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    if request.param == "sqlite":
        folder: Path = tmp_path_factory.mktemp("store")
        opened = Store.open(f"sqlite:///{folder / 'gateway.db'}")
    else:
        opened = Store.open(request.getfixturevalue("postgres_server").new_database())
    yield opened
    opened.close()


@SHARED
@given(
    document=DOCUMENTS,
    served=st.none() | DOCUMENTS,
    name=TEXT,
    reason=TEXT,
    at=TIMES,
    state=st.sampled_from(State),
    sizes=st.lists(st.integers(0, 2**62), max_size=3),
)
def test_whatever_a_resource_holds_comes_back(
    store: Store,
    document: dict[str, Any],
    served: dict[str, Any] | None,
    name: str,
    reason: str,
    at: float,
    state: State,
    sizes: list[int],
) -> None:
    wipe(store)
    files = tuple(AssetFile(path=name, sha256=reason, size_bytes=size) for size in sizes)
    given_one = replace(
        resource("k", document=document, served=served, state=state, reason=reason, files=files),
        name=name,
        created_at=at,
        modified_at=-at,
    )

    put = write(store, lambda transaction: transaction.put(given_one, expected=None))

    assert read(store, lambda transaction: transaction.get(put.ref)) == put == replace(given_one, version=put.version)


@SHARED
@given(text=st.text(st.characters()), document=st.dictionaries(st.text(st.characters()), st.text(st.characters())))
def test_no_text_whatever_makes_a_question_or_a_change_fail(
    store: Store, text: str, document: dict[str, str]
) -> None:
    wipe(store)
    ref = Ref(kind=Kind.MODEL, parent=text, key=text)
    one = replace(resource("k", reason=text, document=document), ref=ref)

    write(store, lambda transaction: transaction.put(one, expected=None))

    found = read(store, lambda transaction: transaction.get(ref))
    assert found is not None and found.reason == found.ref.key
    assert read(store, lambda transaction: transaction.list_blobs(text, text, text, 1)).items == []
    assert read(store, lambda transaction: transaction.audits(before=None, limit=1, who=text, target=text)) == []


@SHARED
@given(steps=STEPS, limit=st.integers(1, 4))
def test_a_store_holds_what_a_dictionary_holds(
    store: Store, steps: list[tuple[str, str, str, bool]], limit: int
) -> None:
    wipe(store)
    model: dict[Ref, Resource] = {}
    versions: set[int] = set()

    for number, (verb, parent, key, right) in enumerate(steps):
        ref = Ref(kind=Kind.ONLINE_DEPLOYMENT, parent=parent, key=key)
        known = model.get(ref)
        one = resource(key, parent, Kind.ONLINE_DEPLOYMENT, document={"n": number}, created_at=-float(number))
        try:
            if verb == "delete":
                expected = known.version if known and right else None
                assert write(store, lambda transaction, e=expected, r=ref: transaction.delete(r, expected=e)) is (  # type: ignore[misc]
                    known is not None
                )
                model.pop(ref, None)
            else:
                expected = None if verb == "make" or known is None else known.version + (not right)
                put = write(store, lambda transaction, o=one, e=expected, v=verb: _put(transaction, o, e, v))  # type: ignore[misc]
                assert put.version not in versions
                versions.add(put.version)
                model[ref] = put
        except VersionConflict as conflict:
            assert known is not None and conflict.found == known.version
            assert verb == "make" or not right
        except InterruptedError:
            assert verb == "abort"

    held = read(store, lambda transaction: transaction.find(Kind.ONLINE_DEPLOYMENT))
    assert {item.ref: item for item in held} == model
    for newest_first in (False, True):
        assert _pages(store, limit, newest_first) == (held[::-1] if newest_first else held)


def _put(transaction: Transaction, one: Resource, expected: int | None, verb: str) -> Resource:
    put = transaction.put(one, expected=expected)
    if verb == "abort":
        raise InterruptedError
    return put


def _pages(store: Store, limit: int, newest_first: bool) -> list[Resource]:
    found: list[Resource] = []
    mark = ""
    while True:
        page = read(
            store,
            lambda transaction, mark=mark: transaction.page(  # type: ignore[misc]
                Kind.ONLINE_DEPLOYMENT, None, limit=limit, after=mark, newest_first=newest_first
            ),
        )
        assert len(page.items) <= limit
        found += page.items
        mark = page.next
        if not mark:
            return found


@given(prefix=TEXT.filter(bool), text=TEXT)
def test_a_text_begins_with_a_prefix_when_it_lies_between_the_prefix_and_its_end(prefix: str, text: str) -> None:
    for candidate in (text, prefix + text, prefix[:-1] + text):
        end = _end_of(prefix)
        lies_between = prefix.encode() <= candidate.encode() and (not end or candidate.encode() < end.encode())
        assert lies_between == candidate.startswith(prefix)


@given(number=st.integers(1, 2**31 - 1), revision=st.integers(1, 2**31 - 2))
def test_a_version_names_its_row_and_revision(number: int, revision: int) -> None:
    assert rows.split_version(rows.version_of(number, revision)) == (number, revision)
