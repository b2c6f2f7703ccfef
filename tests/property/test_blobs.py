"""Names, ranges and lists of the asset storage, for all texts and numbers: nothing leaves, nothing is lost."""

from __future__ import annotations

import asyncio
import re
from pathlib import PurePosixPath
from urllib.parse import parse_qsl, quote

from hypothesis import given
from hypothesis import strategies as st

from gateway.controlplane.blobs import sas
from gateway.controlplane.blobs.names import Target, parse_target
from gateway.controlplane.blobs.ranges import parse_range
from gateway.controlplane.blobs.refusals import Fault, Refusal
from gateway.controlplane.blobs.storage import BlobLimits, Storage
from gateway.controlplane.blobs.xml_text import Listed, parse_block_list
from gateway.controlplane.store.records import Blob
from tests.support.blob_index import MemoryIndex

PIECES = st.sampled_from(
    ["..", ".", "/", "//", "%2e", "%2E%2e", "%2f", "%5c", "\\", "%00", "a", "b.c", "%", "é", "%c0%ae"]
)
HOSTILE = st.lists(st.one_of(PIECES, st.text(max_size=3)), max_size=12).map("".join)
SEGMENT = st.text(
    st.characters(min_codepoint=32, exclude_categories=["Cs", "Cc"], exclude_characters="/\\"), min_size=1
)
SEGMENTS = SEGMENT.filter(lambda text: text not in (".", "..") and len(text.encode()) < 256)
PATHS = (
    st.lists(SEGMENTS, min_size=1, max_size=5)
    .map("/".join)
    .filter(lambda text: not re.search("[\ufffe\uffff\U0010ffff]", text) and len(text) <= 1024)
)


@given(HOSTILE)
def test_whatever_is_taken_for_a_name_stays_below_its_folder(text: str) -> None:
    try:
        target = parse_target(b"/blob/a/azureml/" + text.encode("utf-8", "surrogatepass"))
    except Refusal as refusal:
        assert refusal.fault in (Fault.INVALID_URI, Fault.INVALID_RESOURCE_NAME)
        return
    path = PurePosixPath("/root") / target.path.removesuffix("/")
    assert ".." not in path.parts
    assert path.is_relative_to("/root")
    assert str(path) == f"/root/{target.path}".removesuffix("/")
    assert "\0" not in target.path
    assert "\\" not in target.path


@given(PATHS)
def test_every_plain_name_comes_through_as_clients_escape_it(path: str) -> None:
    for safe in ("~/", ""):
        raw = f"/blob/a.blob.core.windows.net/azureml/{quote(path, safe=safe)}".encode()
        assert parse_target(raw) == Target(container="azureml", path=path)


@given(st.integers(0, 50), st.integers(0, 60), st.one_of(st.none(), st.integers(0, 60)))
def test_a_range_is_a_slice(size: int, first: int, last: int | None) -> None:
    data = bytes(range(size))
    wanted = data[first:] if last is None else data[first : last + 1]
    try:
        span = parse_range(f"bytes={first}-{'' if last is None else last}", size)
    except Refusal as refusal:
        assert wanted == b""
        backwards = last is not None and last < first
        assert refusal.fault is (Fault.INVALID_HEADER if backwards else Fault.INVALID_RANGE)
        return
    assert span is not None
    assert data[span.first : span.last + 1] == wanted
    assert span.size_bytes == len(wanted) > 0


@given(st.text(max_size=20))
def test_a_range_of_any_text_is_one_or_refused(text: str) -> None:
    try:
        span = parse_range(text, 10)
    except Refusal:
        return
    assert span is None or 0 <= span.first <= span.last <= 9


@given(st.binary(max_size=200))
def test_any_bytes_are_a_list_of_blocks_or_refused(body: bytes) -> None:
    try:
        parse_block_list(body)
    except Refusal as refusal:
        assert refusal.fault in (Fault.INVALID_XML, Fault.INVALID_BLOCK_LIST)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["Latest", "Committed", "Uncommitted"]),
            st.from_regex("[A-Za-z0-9+/=]{1,9}", fullmatch=True),
        )
    )
)
def test_a_list_of_blocks_is_read_as_it_was_written(blocks: list[tuple[str, str]]) -> None:
    body = f"<BlockList>{''.join(f'<{where}>{one}</{where}>' for where, one in blocks)}</BlockList>"
    listed = [Listed(where=where, block_id=one) for where, one in blocks]  # type: ignore[arg-type]
    assert parse_block_list(body.encode()) == listed


@given(PATHS, PATHS, st.data())
def test_a_signature_fits_its_folder_and_no_other(folder: str, path: str, data: st.DataObject) -> None:
    secret = b"secret"
    query = parse_qsl(sas.sign(secret, "azureml", folder, "r", 1000), strict_parsing=True)
    assert sas.check(secret, query, "azureml", f"{folder}/{path}", 0) == "r"
    other = data.draw(PATHS.filter(lambda text: not text.startswith(f"{folder}/")))
    try:
        sas.check(secret, query, "azureml", other, 0)
    except Refusal:
        return
    raise AssertionError("a signature fits a path outside of its folder")


NAMES = st.sets(st.text("ab/é", min_size=1, max_size=6).map(lambda text: text.strip("/") or "a"), max_size=12)


@given(NAMES, st.text("ab/", max_size=3), st.integers(1, 4), st.sampled_from(["", "/", "b"]))
def test_pages_of_a_list_are_the_list(names: set[str], prefix: str, limit: int, delimiter: str) -> None:
    index = MemoryIndex()
    for name in names:
        index.kept["azureml", name] = Blob(
            container="azureml", path=name, sha256="", size_bytes=0, md5=b"", etag="", modified_at=0
        )
    # A list needs no files.
    storage = Storage(None, index, BlobLimits())  # type: ignore[arg-type]

    async def all_pages() -> list[str]:
        found: list[str] = []
        after = ""
        for _ in range(len(names) + 1):
            page, after = await storage.list_blobs("azureml", prefix, delimiter, after, limit)
            assert len(page) <= limit
            found += [one if isinstance(one, str) else one.path for one in page]
            if not after:
                return found
        raise AssertionError("the list does not end")

    wanted: set[str] = set()
    for name in names:
        if name.startswith(prefix):
            cut = name.find(delimiter, len(prefix)) if delimiter else -1
            wanted.add(name if cut < 0 else name[: cut + 1])
    found = asyncio.run(all_pages())
    assert found == sorted(found)
    assert found == sorted(wanted)
