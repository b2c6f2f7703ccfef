"""What the store promises, on SQLite and on PostgreSQL alike."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from gateway.controlplane.store import database, migrate, schema
from gateway.controlplane.store.database import Store, StoreBusy, StoreError, VersionConflict
from gateway.controlplane.store.records import (
    AssetFile,
    Event,
    Kind,
    ManagementToken,
    Operation,
    Resource,
    State,
    Status,
)
from gateway.controlplane.store.transaction import EVENTS_MAX, Transaction
from tests.support.stores import (
    audit_entry,
    blob,
    block,
    event,
    operation,
    read,
    ref_of,
    resource,
    sql,
    wipe,
    write,
)

BACKENDS = ("sqlite", "postgres")


@pytest.fixture(scope="module", params=BACKENDS)
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, str]]:
    """A store that all tests of a database use in turn, and its URL."""
    url = _new_url(request, tmp_path_factory.mktemp("store"))
    opened = Store.open(url)
    yield opened, url
    opened.close()


@pytest.fixture
def store(shared: tuple[Store, str]) -> Store:
    wipe(shared[0])
    return shared[0]


@pytest.fixture
def second(store: Store, shared: tuple[Store, str]) -> Iterator[Store]:
    """Another program that uses the same database."""
    opened = Store.open(shared[1])
    yield opened
    opened.close()


@pytest.fixture(params=BACKENDS)
def new_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return _new_url(request, tmp_path)


def _new_url(request: pytest.FixtureRequest, folder: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{folder / 'gateway.db'}"
    url: str = request.getfixturevalue("postgres_server").new_database()
    return url


# Resources


def test_a_resource_comes_back_as_it_was_put(store: Store) -> None:
    asset = resource(
        "7",
        "Digits",
        Kind.MODEL,
        document={"name": "Digits", "tags": {"größe": "\u0000 ✓"}, "weights": [0.1, -0.0, 1e22, 2**70, None, True]},
        served={},
        state=State.FAILED,
        reason="no room; nothing loaded",
        owner="folder",
        files=(AssetFile(path="a/model.onnx", sha256="0" * 64, size_bytes=2**40),),
        created_at=1720000000.123456,
    )

    put = write(store, lambda transaction: transaction.put(asset, expected=None))

    assert put == replace(asset, version=put.version)
    assert put.version > 0
    assert read(store, lambda transaction: transaction.get(asset.ref)) == put
    assert read(store, lambda transaction: transaction.get(ref_of("8", "digits", Kind.MODEL))) is None
    assert read(store, lambda transaction: transaction.get(ref_of("7", "digits", Kind.DATA))) is None


def test_a_resource_is_made_once(store: Store) -> None:
    first = write(store, lambda transaction: transaction.put(resource("e"), expected=None))

    with pytest.raises(VersionConflict, match="online_endpoint e was changed meanwhile: it has version") as refused:
        write(store, lambda transaction: transaction.put(resource("e", reason="other"), expected=None))

    assert refused.value.found == first.version
    assert read(store, lambda transaction: transaction.get(ref_of("e"))) == first


def test_an_update_needs_the_version_that_is_there(store: Store) -> None:
    first = write(store, lambda transaction: transaction.put(resource("e"), expected=None))
    changed = replace(first, state=State.UPDATING, served={"a": 1}, modified_at=3.0)

    second = write(store, lambda transaction: transaction.put(changed, expected=first.version))

    assert second.version > first.version
    assert (
        read(store, lambda transaction: transaction.get(first.ref))
        == second
        == replace(changed, version=second.version)
    )
    with pytest.raises(VersionConflict) as refused:
        write(store, lambda transaction: transaction.put(changed, expected=first.version))
    assert refused.value.found == second.version


@pytest.mark.parametrize("version", [0, 1, -1, 1 << 33, (1 << 33) - 1, 1 << 90])
def test_a_version_that_no_row_has_fits_none(store: Store, version: int) -> None:
    write(store, lambda transaction: transaction.put(resource("e"), expected=None))

    with pytest.raises(VersionConflict):
        write(store, lambda transaction: transaction.put(resource("e"), expected=version))
    with pytest.raises(VersionConflict) as refused:
        write(store, lambda transaction: transaction.put(resource("d", "e", Kind.ROLLOUT), expected=version))
    assert refused.value.found is None
    assert str(refused.value).endswith("rollout e/d was changed meanwhile: it is not there")


def test_a_resource_that_is_made_again_has_a_version_that_it_never_had(store: Store) -> None:
    first = write(store, lambda transaction: transaction.put(resource("e"), expected=None))
    write(store, lambda transaction: transaction.delete(first.ref))

    again = write(store, lambda transaction: transaction.put(resource("e"), expected=None))

    assert again.version != first.version
    with pytest.raises(VersionConflict):
        write(store, lambda transaction: transaction.put(first, expected=first.version))


def test_a_delete_may_demand_a_version(store: Store) -> None:
    made = write(store, lambda transaction: transaction.put(resource("e"), expected=None))

    with pytest.raises(VersionConflict) as refused:
        write(store, lambda transaction: transaction.delete(made.ref, expected=made.version + 1))
    assert refused.value.found == made.version
    assert write(store, lambda transaction: transaction.delete(made.ref, expected=made.version))
    assert not write(store, lambda transaction: transaction.delete(made.ref, expected=made.version))
    assert not write(store, lambda transaction: transaction.delete(made.ref))


def test_resources_are_found_by_parent_in_order_of_creation_whatever_the_clock_says(store: Store) -> None:
    def work(transaction: Transaction) -> None:
        for at, (key, parent) in enumerate([("z", "e"), ("a", "f"), ("a", "e"), ("m", "e")]):
            transaction.put(resource(key, parent, Kind.ONLINE_DEPLOYMENT, created_at=-float(at)), expected=None)

    write(store, work)

    def keys(parent: str | None) -> list[str]:
        found = read(store, lambda transaction: transaction.find(Kind.ONLINE_DEPLOYMENT, parent))
        return [f"{item.ref.parent}/{item.ref.key}" for item in found]

    assert keys("e") == ["e/z", "e/a", "e/m"]
    assert keys(None) == ["e/z", "f/a", "e/a", "e/m"]
    assert keys("g") == []
    assert read(store, lambda transaction: transaction.find(Kind.BATCH_DEPLOYMENT)) == []
    assert read(store, lambda transaction: transaction.count(Kind.ONLINE_DEPLOYMENT)) == 4
    assert read(store, lambda transaction: transaction.count(Kind.BATCH_DEPLOYMENT)) == 0


@pytest.mark.parametrize("newest_first", [False, True])
def test_pages_together_are_the_list_though_rows_come_and_go_between_them(store: Store, newest_first: bool) -> None:
    for number in range(7):
        write(store, lambda transaction, number=number: transaction.put(resource(f"e{number}"), expected=None))  # type: ignore[misc]

    def page(after: str) -> tuple[list[str], str]:
        found = read(
            store,
            lambda transaction: transaction.page(
                Kind.ONLINE_ENDPOINT, None, limit=3, after=after, newest_first=newest_first
            ),
        )
        return [item.name for item in found.items], found.next

    first, mark = page("")
    write(store, lambda transaction: transaction.delete(ref_of(first[2])))
    second, mark = page(mark)
    third, end = page(mark)

    names = [f"e{number}" for number in range(7)]
    assert first + second + third == (names[::-1] if newest_first else names)
    assert end == ""


def test_a_page_that_ends_with_the_list_has_no_next(store: Store) -> None:
    for key in ("1", "2"):
        write(store, lambda transaction, key=key: transaction.put(resource(key, "m", Kind.MODEL), expected=None))  # type: ignore[misc]

    page = read(store, lambda transaction: transaction.page(Kind.MODEL, "m", limit=2))

    assert [item.name for item in page.items] == ["1", "2"]
    assert page.next == ""
    assert read(store, lambda transaction: transaction.page(Kind.MODEL, "n", limit=2)).items == []


@pytest.mark.parametrize("mark", ["x", "-1", "1 or 1", "f" * 16, "Ａ", "0x1"])
def test_a_mark_that_no_page_gave_is_refused(store: Store, mark: str) -> None:
    with pytest.raises(ValueError, match="ask for the first page again"):
        read(store, lambda transaction: transaction.page(Kind.MODEL, "m", limit=2, after=mark))


def test_the_latest_version_of_an_asset_is_the_one_made_last(store: Store) -> None:
    def work(transaction: Transaction) -> None:
        for name, version in [("Digits", "10"), ("iris", "1"), ("Digits", "9")]:
            transaction.put(resource(version, name, Kind.MODEL), expected=None)
        transaction.put(resource("1", "iris", Kind.DATA), expected=None)

    write(store, work)

    latest = read(store, lambda transaction: transaction.latest(Kind.MODEL, "digits"))
    assert latest is not None and latest.name == "9"
    assert read(store, lambda transaction: transaction.latest(Kind.CODE, "digits")) is None
    names = read(store, lambda transaction: transaction.asset_names(Kind.MODEL))
    assert [(key, name, item.name) for key, name, item in names] == [("digits", "Digits", "9"), ("iris", "iris", "1")]
    assert read(store, lambda transaction: transaction.asset_names(Kind.CODE)) == []


# Operations, audit, events


def test_an_operation_is_followed_from_its_beginning_to_its_end(store: Store) -> None:
    begun = operation("o1", endpoint="e", targets=(ref_of("e"), ref_of("d", "e", Kind.ROLLOUT)), detail={"a": [1]})
    write(store, lambda transaction: transaction.add_operation(begun))
    ended = replace(begun, status=Status.FAILED, error_code="x", error_message="why", ended_at=9.5)

    assert read(store, lambda transaction: transaction.operation("o1")) == begun
    assert read(store, Transaction.unfinished) == [begun]
    write(store, lambda transaction: transaction.update_operation(ended))

    assert read(store, lambda transaction: transaction.operation("o1")) == ended
    assert read(store, Transaction.unfinished) == []
    assert read(store, lambda transaction: transaction.operation("o2")) is None


def test_operations_under_way_come_in_the_order_of_their_beginning(store: Store) -> None:
    def work(transaction: Transaction) -> None:
        for id_, endpoint, at in [("z", "e", 3.0), ("a", "f", 2.0), ("m", "e", 1.0)]:
            transaction.add_operation(operation(id_, endpoint=endpoint, started_at=at))

    write(store, work)

    assert [found.id for found in read(store, Transaction.unfinished)] == ["z", "a", "m"]
    assert [found.id for found in read(store, lambda transaction: transaction.unfinished("e"))] == ["z", "m"]


def test_an_operation_is_added_once_and_must_be_known_to_change(store: Store) -> None:
    write(store, lambda transaction: transaction.add_operation(operation("o")))

    with pytest.raises(VersionConflict, match="operation o exists already"):
        write(store, lambda transaction: transaction.add_operation(operation("o")))
    with pytest.raises(VersionConflict, match="operation p is not known"):
        write(store, lambda transaction: transaction.update_operation(operation("p")))


def test_only_operations_that_ended_before_then_are_forgotten(store: Store) -> None:
    def ended(id_: str, at: float) -> Operation:
        return operation(id_, status=Status.SUCCEEDED, ended_at=at)

    def work(transaction: Transaction) -> int:
        for one in (ended("old", 4.0), ended("new", 5.0), operation("running", ended_at=1.0), operation("open")):
            transaction.add_operation(one)
        return transaction.forget_operations(5.0)

    assert write(store, work) == 1
    assert read(store, lambda transaction: transaction.operation("old")) is None
    assert read(store, lambda transaction: transaction.operation("new")) is not None
    assert len(read(store, Transaction.unfinished)) == 2


def test_the_audit_log_is_read_from_its_newest_entry_on(store: Store) -> None:
    def work(transaction: Transaction) -> None:
        for number, who in enumerate(["ann", "bob", "ann", "ann"]):
            transaction.add_audit(
                audit_entry(at=float(number), who=who, target=f"t{number % 2}", detail={"n": number})
            )

    write(store, work)

    def numbers(**question: Any) -> list[int]:
        found = read(store, lambda transaction: transaction.audits(**{"before": None, "limit": 10, **question}))
        return [entry.detail["n"] for entry in found]

    newest = read(store, lambda transaction: transaction.audits(before=None, limit=2))
    assert newest[0] == audit_entry(id=newest[0].id, at=3.0, target="t1", detail={"n": 3})
    assert [entry.detail["n"] for entry in newest] == [3, 2]
    assert numbers(before=newest[-1].id) == [1, 0]
    assert numbers(who="ann") == [3, 2, 0]
    assert numbers(target="t1") == [3, 1]
    assert numbers(who="bob", target="t0") == []


def test_the_last_events_come_with_the_oldest_first(store: Store) -> None:
    def work(transaction: Transaction) -> None:
        for number, deployment in enumerate(["blue", "green", "", "blue", "blue"]):
            transaction.add_event(event(deployment, message=str(number)))
        transaction.add_event(event("blue", endpoint="f", message="other"))

    write(store, work)

    def messages(deployment: str | None, limit: int = 10) -> list[str]:
        return [
            found.message for found in read(store, lambda transaction: transaction.events("e", deployment, limit))
        ]

    assert messages("blue") == ["0", "3", "4"]
    assert messages("blue", 2) == ["3", "4"]
    assert messages("") == ["2"]
    assert messages(None) == ["0", "1", "2", "3", "4"]
    ids = [found.id for found in read(store, lambda transaction: transaction.events("e", "blue", 10))]
    for after, left in ((ids[0], ["3", "4"]), (ids[-1], [])):
        later = read(store, partial(_events_after, after))
        assert [found.message for found in later] == left
    assert write(store, lambda transaction: transaction.forget_events("e", "blue")) == 3
    assert messages(None) == ["1", "2"]
    assert write(store, lambda transaction: transaction.forget_events("e", None)) == 2
    assert [found.message for found in read(store, lambda transaction: transaction.events("f", None, 1))] == ["other"]


def _events_after(after: int, transaction: Transaction) -> list[Event]:
    return transaction.events("e", "blue", 10, after)


def test_a_deployment_keeps_a_bounded_number_of_events(store: Store) -> None:
    def work(transaction: Transaction) -> None:
        transaction.add_event(event("green", message="green"))
        for number in range(EVENTS_MAX + 3):
            transaction.add_event(event("blue", message=str(number)))

    write(store, work)

    found = read(store, lambda transaction: transaction.events("e", None, 2 * EVENTS_MAX))
    assert len(found) == EVENTS_MAX + 1
    assert [found[0].message, found[1].message, found[-1].message] == ["green", "3", str(EVENTS_MAX + 2)]


def test_several_events_are_kept_in_their_order_and_bounded_too(store: Store) -> None:
    def work(transaction: Transaction) -> None:
        transaction.add_events([])
        transaction.add_event(event("green", message="green"))
        transaction.add_events([event("blue", message=str(number)) for number in range(EVENTS_MAX - 1)])
        transaction.add_events([event("blue", message=message) for message in ("a", "b", "c")])

    write(store, work)

    found = [one.message for one in read(store, lambda transaction: transaction.events("e", None, 2 * EVENTS_MAX))]
    assert len(found) == EVENTS_MAX + 1
    assert [*found[:2], *found[-4:]] == ["green", "2", str(EVENTS_MAX - 2), "a", "b", "c"]


# Secrets and tokens


def test_secrets_are_kept_by_name(store: Store) -> None:
    write(store, lambda transaction: transaction.put_secret("b", b"\x00\xff"))
    write(store, lambda transaction: transaction.put_secret("a", b"1"))
    write(store, lambda transaction: transaction.put_secret("a", b""))

    assert read(store, Transaction.secrets) == ["a", "b"]
    assert read(store, lambda transaction: transaction.secret("a")) == b""
    assert read(store, lambda transaction: transaction.secret("b")) == b"\x00\xff"
    assert read(store, lambda transaction: transaction.secret("c")) is None
    assert write(store, lambda transaction: transaction.delete_secret("a"))
    assert not write(store, lambda transaction: transaction.delete_secret("a"))


def test_a_management_token_is_found_by_its_digest(store: Store) -> None:
    token = ManagementToken(
        name="ci", digest=bytes(range(32)), role="operator", created_at=1.0, created_by="ann", expires_at=9.0
    )
    other = replace(token, name="Ci", digest=b"\xff" * 32, expires_at=None)
    write(store, lambda transaction: transaction.add_token(token))
    write(store, lambda transaction: transaction.add_token(other))

    assert read(store, lambda transaction: transaction.token(token.digest)) == token
    assert read(store, lambda transaction: transaction.token(b"")) is None
    assert read(store, Transaction.tokens) == [other, token]
    for taken in (replace(token, digest=b"new"), replace(token, name="new")):
        with pytest.raises(VersionConflict, match="exists already"):
            write(store, lambda transaction, taken=taken: transaction.add_token(taken))  # type: ignore[misc]
    assert write(store, lambda transaction: transaction.delete_token("ci"))
    assert not write(store, lambda transaction: transaction.delete_token("ci"))


# Blobs


def test_a_blob_is_replaced_unless_only_a_new_one_will_do(store: Store) -> None:
    first = blob("a/b", metadata={"name": "ü"}, size_bytes=2**41)
    second = replace(first, sha256="c" * 64, etag="0x2")
    write(store, lambda transaction: transaction.put_blob(first, only_new=True))

    with pytest.raises(VersionConflict, match="a blob a/b exists already in c"):
        write(store, lambda transaction: transaction.put_blob(second, only_new=True))
    assert read(store, lambda transaction: transaction.blob("c", "a/b")) == first
    write(store, lambda transaction: transaction.put_blob(second))
    assert read(store, lambda transaction: transaction.blob("c", "a/b")) == second
    assert read(store, lambda transaction: transaction.blob("d", "a/b")) is None
    assert write(store, lambda transaction: transaction.delete_blob("c", "a/b"))
    assert not write(store, lambda transaction: transaction.delete_blob("c", "a/b"))


def test_blobs_are_listed_by_prefix_in_the_order_of_their_bytes(store: Store) -> None:
    paths = ["B", "a", "a%b", "a/1", "a/2", "a/\U0010ffff", "a/é", "a0", "a_b", "b"]

    def work(transaction: Transaction) -> None:
        for path in reversed(paths):
            transaction.put_blob(blob(path))
        transaction.put_blob(blob("a/3", container="other"))

    write(store, work)

    def listed(prefix: str, after: str = "", limit: int = 100) -> tuple[list[str], str]:
        page = read(store, lambda transaction: transaction.list_blobs("c", prefix, after, limit))
        return [item.path for item in page.items], page.next

    ordered = sorted(paths, key=str.encode)
    assert listed("") == (ordered, "")
    for prefix in ("a/", "a", "a%", "a_", "a/\U0010ffff", "z", "\U0010ffff", "\ud7ff"):
        assert listed(prefix) == ([path for path in ordered if path.startswith(prefix)], ""), prefix
    first, mark = listed("a/", limit=2)
    assert (first, mark) == (["a/1", "a/2"], "a/2")
    assert listed("a/", mark, 2) == (["a/é", "a/\U0010ffff"], "")


def test_blocks_wait_for_their_list(store: Store) -> None:
    def work(transaction: Transaction) -> None:
        for one in (block("b", created_at=2.0), block("a", created_at=1.0), block("x", path="other", created_at=0.5)):
            transaction.add_block(one)
        transaction.add_block(block("b", created_at=3.0, size_bytes=7))

    write(store, work)

    found = read(store, lambda transaction: transaction.blocks("c", "p"))
    assert found == [block("a", created_at=1.0), block("b", created_at=3.0, size_bytes=7)]
    assert [one.block_id for one in read(store, lambda transaction: transaction.old_blocks(3.0))] == ["x", "a"]
    assert read(store, lambda transaction: transaction.block_count("c", "p")) == 2
    assert write(store, lambda transaction: transaction.clear_blocks("c", "p")) == 2
    assert read(store, lambda transaction: transaction.blocks("c", "p")) == []
    assert len(read(store, lambda transaction: transaction.blocks("c", "other"))) == 1
    assert write(store, lambda transaction: transaction.delete_old_blocks(0.5)) == 0
    assert write(store, lambda transaction: transaction.delete_old_blocks(0.6)) == 1
    assert read(store, lambda transaction: transaction.block_count("c", "other")) == 0


def test_blobs_that_were_not_touched_since_are_found(store: Store) -> None:
    def work(transaction: Transaction) -> None:
        for path, at in [("b", 1.0), ("a", 2.0), ("c", 3.0)]:
            transaction.put_blob(blob(path, modified_at=at))

    write(store, work)

    assert [one.path for one in read(store, lambda transaction: transaction.old_blobs(3.0))] == ["a", "b"]


def test_bytes_and_digests_in_use_are_counted_over_all_that_names_content(store: Store) -> None:
    assert read(store, Transaction.blob_bytes) == 0
    assert read(store, Transaction.digests_in_use) == set()
    files = tuple(AssetFile(path=digest, sha256=digest, size_bytes=1) for digest in ("x", "y"))

    def work(transaction: Transaction) -> None:
        transaction.put_blob(blob("a", sha256="s1", size_bytes=2**40))
        transaction.put_blob(blob("b", sha256="s1", size_bytes=1))
        transaction.add_block(block("a", sha256="s2", size_bytes=2))
        transaction.put(resource("1", "m", Kind.MODEL, files=files), expected=None)
        transaction.put(resource("e"), expected=None)

    write(store, work)

    assert read(store, Transaction.blob_bytes) == 2**40 + 3
    assert read(store, Transaction.digests_in_use) == {"s1", "s2", "x", "y"}


def test_what_no_database_can_hold_is_replaced_and_never_fails(store: Store) -> None:
    hostile = "a\0b\ud800c"

    def work(transaction: Transaction) -> None:
        transaction.add_audit(audit_entry(who=hostile, target=hostile, detail={hostile: [(hostile, 1)]}))
        transaction.put(resource("e", reason=hostile, document={"a": hostile}), expected=None)

    write(store, work)

    entry = read(store, lambda transaction: transaction.audits(before=None, limit=1, who=hostile))[0]
    assert entry.who == entry.target == "a\ufffdb?c"
    assert entry.detail == {"a\0b?c": [["a\0b?c", 1]]}
    found = read(store, lambda transaction: transaction.get(ref_of("e")))
    assert found is not None and found.document == {"a": "a\0b?c"}
    assert read(store, lambda transaction: transaction.get(ref_of(hostile))) is None


def test_a_very_long_name_of_who_did_what_is_kept_by_its_beginning(store: Store) -> None:
    # Without repetitions, which an index would compress.
    name = "".join(chr(0x4E00 + number * 7919 % 20000) for number in range(5000))
    write(store, lambda transaction: transaction.add_audit(audit_entry(who=name, target=name)))

    found = read(store, lambda transaction: transaction.audits(before=None, limit=2, who=name, target=name))

    assert [(entry.who, entry.target) for entry in found] == [(name[:500], name[:500])]


# Transactions


def test_a_work_that_raises_leaves_nothing(store: Store) -> None:
    def work(transaction: Transaction) -> None:
        transaction.put(resource("e"), expected=None)
        raise LookupError("no such model")

    with pytest.raises(LookupError, match="no such model"):
        write(store, work)

    assert read(store, lambda transaction: transaction.find(Kind.ONLINE_ENDPOINT)) == []


def test_two_writers_lose_no_change(store: Store, second: Store) -> None:
    write(store, lambda transaction: transaction.put(resource("e", document={"n": 0}), expected=None))

    def increment(transaction: Transaction) -> Resource:
        found = transaction.get(ref_of("e"))
        assert found is not None
        return transaction.put(replace(found, document={"n": found.document["n"] + 1}), expected=found.version)

    async def increments(one: Store, times: int) -> None:
        for _ in range(times):
            await one.write(increment)

    async def both() -> None:
        await asyncio.gather(increments(store, 15), increments(second, 15))

    asyncio.run(both())

    found = read(second, lambda transaction: transaction.get(ref_of("e")))
    assert found is not None and found.document == {"n": 30}


def test_two_writers_make_a_resource_once(store: Store, second: Store) -> None:
    async def make(one: Store, key: str) -> bool:
        try:
            await one.write(lambda transaction: transaction.put(resource(key), expected=None))
        except VersionConflict:
            return False
        return True

    async def race(key: str) -> int:
        return sum(await asyncio.gather(make(store, key), make(second, key)))

    assert [asyncio.run(race(f"e{number}")) for number in range(10)] == [1] * 10


def test_a_reader_sees_one_moment(store: Store, second: Store) -> None:
    write(store, lambda transaction: transaction.put(resource("a"), expected=None))

    def work(transaction: Transaction) -> tuple[int, int]:
        before = len(transaction.find(Kind.ONLINE_ENDPOINT))
        write(second, lambda other: other.put(resource("b"), expected=None))
        return before, len(transaction.find(Kind.ONLINE_ENDPOINT))

    assert read(store, work) == (1, 1)
    assert len(read(store, lambda transaction: transaction.find(Kind.ONLINE_ENDPOINT))) == 2


def test_a_reader_that_is_cancelled_or_a_writer_leaves_a_store_that_works(store: Store) -> None:
    begun, go_on = threading.Event(), threading.Event()
    ran: list[str] = []

    def slow(transaction: Transaction) -> None:
        transaction.put(resource("slow"), expected=None)
        begun.set()
        assert go_on.wait(10)

    async def story() -> None:
        first = asyncio.create_task(store.write(slow))
        await asyncio.to_thread(begun.wait, 10)
        second = asyncio.create_task(store.write(lambda _: ran.append("never begun")))
        await asyncio.sleep(0)
        for task in (first, second):
            task.cancel()
        assert [type(end) for end in await asyncio.gather(first, second, return_exceptions=True)] == [
            asyncio.CancelledError,
            asyncio.CancelledError,
        ]
        go_on.set()
        await store.write(lambda transaction: transaction.put(resource("after"), expected=None))

    asyncio.run(story())

    found = read(store, lambda transaction: transaction.find(Kind.ONLINE_ENDPOINT))
    assert [item.name for item in found] == ["slow", "after"]
    assert ran == []


def test_too_many_that_wait_are_told_to_come_later(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "WAITING_MAX", 2)

    async def story() -> list[Any]:
        return await asyncio.gather(*(store.read(Transaction.secrets) for _ in range(4)), return_exceptions=True)

    ends = asyncio.run(story())

    assert ends[:2] == [[], []]
    assert [type(end) for end in ends[2:]] == [StoreBusy, StoreBusy]
    assert "is behind: 2 changes and questions wait for it" in str(ends[3])
    assert read(store, Transaction.secrets) == []


# Opening and closing


def test_the_migrated_schema_is_the_one_that_the_program_uses(new_url: str) -> None:
    opened = Store.open(new_url)

    def differences(transaction: Transaction) -> list[Any]:
        options = {
            "version_table": schema.VERSION_TABLE,
            "compare_type": True,
            "compare_server_default": True,
        }
        context = MigrationContext.configure(transaction._connection, opts=options)
        return list(compare_metadata(context, schema.METADATA))

    def shape(transaction: Transaction) -> Any:
        """What Alembic does not compare: collations, and how numbers are counted."""
        if transaction._connection.dialect.name == "sqlite":
            question = "SELECT name, sql FROM sqlite_schema WHERE tbl_name <> ?"
            found = transaction._connection.exec_driver_sql(question, (schema.VERSION_TABLE,))
            return sorted((name, " ".join((text or "").split())) for name, text in found)
        question = (
            "SELECT table_name, column_name, data_type, collation_name, is_nullable, column_default"
            " FROM information_schema.columns WHERE table_schema = 'public' AND table_name <> %s"
        )
        return sorted(map(repr, transaction._connection.exec_driver_sql(question, (schema.VERSION_TABLE,))))

    def rebuild(transaction: Transaction) -> None:
        schema.METADATA.drop_all(transaction._connection)
        schema.METADATA.create_all(transaction._connection)

    try:
        assert read(opened, differences) == []
        migrated = read(opened, shape)
        write(opened, rebuild)
        assert read(opened, shape) == migrated
    finally:
        opened.close()


def test_the_newest_step_is_the_one_that_the_program_wants() -> None:
    assert migrate.known_revisions() == {schema.HEAD}


def test_what_was_stored_is_there_when_the_store_is_opened_again(new_url: str) -> None:
    first = Store.open(new_url)
    put = write(first, lambda transaction: transaction.put(resource("e"), expected=None))
    first.close()

    second = Store.open(new_url)
    try:
        assert read(second, lambda transaction: transaction.get(put.ref)) == put
    finally:
        second.close()


def test_two_programs_may_open_a_new_database_at_once(new_url: str) -> None:
    async def story() -> list[Store]:
        return await asyncio.gather(*(asyncio.to_thread(Store.open, new_url) for _ in range(3)))

    stores = asyncio.run(story())
    try:
        write(stores[0], lambda transaction: transaction.put_secret("a", b"1"))
        assert [read(store, Transaction.secrets) for store in stores] == [["a"]] * 3
    finally:
        for store in stores:
            store.close()


def test_a_database_that_is_newer_than_the_program_is_refused(new_url: str) -> None:
    first = Store.open(new_url)
    write(first, lambda transaction: sql(transaction, f"UPDATE {schema.VERSION_TABLE} SET version_num = '9042'"))
    first.close()

    with pytest.raises(StoreError, match="written by a newer version of this program: its schema is 9042"):
        Store.open(new_url)


def test_a_database_of_another_program_is_left_alone(new_url: str) -> None:
    first = Store.open(new_url)
    write(first, lambda transaction: sql(transaction, f"DROP TABLE {schema.VERSION_TABLE}"))
    first.close()

    with pytest.raises(
        StoreError, match=f"belongs to another program: it has a table audit and no {schema.VERSION_TABLE}"
    ):
        Store.open(new_url)


def test_a_closed_store_says_so(new_url: str) -> None:
    opened = Store.open(new_url)
    opened.close()
    opened.close()

    assert repr(opened).endswith(", closed>")
    with pytest.raises(StoreError, match="was closed"):
        read(opened, Transaction.secrets)


def test_a_work_that_waits_when_the_store_is_closed_is_refused(new_url: str) -> None:
    opened = Store.open(new_url)
    begun, go_on = threading.Event(), threading.Event()

    def slow(transaction: Transaction) -> str:
        begun.set()
        assert go_on.wait(10)
        return "done"

    async def story() -> list[Any]:
        works = [asyncio.create_task(opened.write(slow)), asyncio.create_task(opened.write(slow))]
        await asyncio.to_thread(begun.wait, 10)
        closing = asyncio.create_task(asyncio.to_thread(opened.close))
        while not opened._closed:
            await asyncio.sleep(0)
        go_on.set()
        await closing
        return await asyncio.gather(*works, return_exceptions=True)

    first, second = asyncio.run(story())

    assert first == "done"
    assert isinstance(second, StoreError)
