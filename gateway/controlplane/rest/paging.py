"""Pages of a list: how many, from where, and the URL of what comes next.

`$top` bounds the whole list, `count` one page; a page has at most PAGE_MAX. `$skip` is opaque: the store's mark, and
`nextLink` has it with what is left of `$top`. What a filter leaves out does not count; a last page may be empty.
Errors: none; marks are checked where the query is read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import quote

from gateway.controlplane.arm.envelope import list_body
from gateway.controlplane.rest.context import Call, Reply
from gateway.controlplane.rest.query import COUNT, ENDPOINT_ORDER, ORDER, SKIP, TOP, Query
from gateway.controlplane.store.records import Kind, Page, Resource
from gateway.controlplane.store.transaction import Transaction, mark_of

T = TypeVar("T")

PAGE_MAX = 100

Keep = Callable[[Resource], bool]


def size_of(query: Query) -> int:
    """How many this page may have."""
    asked = [number for number in (query.number(TOP), query.number(COUNT)) if number is not None]
    return min([*asked, PAGE_MAX])


def is_newest_first(query: Query) -> bool:
    return (query.choice(ORDER) or query.choice(ENDPOINT_ORDER)).lower().endswith("desc")


async def resources(call: Call, kind: Kind, parent: str | None, keep: Keep) -> Page[Resource]:
    """A page of resources that the filter keeps."""
    query = call.query
    size, newest_first, after = size_of(query), is_newest_first(query), query.text(SKIP)

    def work(tx: Transaction) -> Page[Resource]:
        found: list[Resource] = []
        mark = after
        while True:
            page = tx.page(kind, parent, limit=PAGE_MAX, after=mark, newest_first=newest_first)
            for one in page.items:
                if keep(one):
                    found.append(one)
                if len(found) == size:
                    # The next page begins behind it, if there is anything.
                    return Page(items=found, next=page.next if one is page.items[-1] else mark_of(one))
            mark = page.next
            if not mark:
                return Page(items=found, next="")

    return await call.read(work)


def sliced(call: Call, items: Sequence[T]) -> Page[T]:
    """A page of a list that is at hand; the mark counts entries."""
    begin = int(call.query.text(SKIP) or "0", 16)
    end = begin + size_of(call.query)
    return Page(items=list(items[begin:end]), next=f"{end:x}" if end < len(items) else "")


def reply(call: Call, page: Page[Any], bodies: Sequence[dict[str, Any]]) -> Reply:
    return Reply(body=list_body(bodies, _next_link(call, page)))


def _next_link(call: Call, page: Page[Any]) -> str | None:
    left = call.query.number(TOP)
    if not page.next or (left is not None and left <= len(page.items)):
        return None
    given = {name: text for name, text in call.query.given.items() if name != SKIP.name}
    if left is not None:
        given[TOP.name] = str(left - len(page.items))
    given[SKIP.name] = page.next
    return f"{call.base}{call.path}?{encoded(given)}"


def encoded(query: Mapping[str, str]) -> str:
    """A query string."""
    return "&".join(f"{quote(name, safe='$-')}={quote(text, safe='')}" for name, text in query.items())
