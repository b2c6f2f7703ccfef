"""The Blob protocol over HTTP: an ASGI application below `/blob`, as much of it as clients of assets use.

    HEAD, GET, PUT, DELETE {blob}                 whole, or the bytes of a range
    PUT {blob}?comp=block | blocklist | metadata
    GET {container}?restype=container&comp=list   with prefix, delimiter, marker, maxresults, include=metadata

A request is let in by a signed query (sas.py) or by what `authorise` says of its bearer token. Bodies are streamed,
both ways. Whatever is not done is refused with a code, never ignored.
Errors: Azure's, as XML, with the code in `x-ms-error-code` as well; a HEAD's has no body.
Source: Azure Storage, Blob service REST API.
"""

from __future__ import annotations

import hashlib
import logging
import re
from base64 import b64encode
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import formatdate

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from gateway.controlplane.blobs import sas
from gateway.controlplane.blobs.conditions import Conditions, NotModified, check_read, parse_conditions
from gateway.controlplane.blobs.heads import (
    META,
    check_length,
    md5_of,
    metadata_of,
    only_once,
    plain_text,
    raw_path,
    read_given,
    read_marker,
    read_query,
    refuse_what_is_not_done,
    results_max,
    write_marker,
)
from gateway.controlplane.blobs.names import MOUNT, Target, parse_target
from gateway.controlplane.blobs.ranges import Span, parse_range
from gateway.controlplane.blobs.refusals import Fault, Refusal
from gateway.controlplane.blobs.storage import Storage
from gateway.controlplane.blobs.xml_text import (
    BLOCK_LIST_BYTES_MAX,
    Listing,
    error_xml,
    list_xml,
    parse_block_list,
)
from gateway.controlplane.store.records import Blob
from gateway.errors import Code, Problem
from gateway.identity import RequestIds, clean_client_id

log = logging.getLogger(__name__)

# Which of the permissions (sas.PERMISSIONS) whoever sent the request has; "" for nobody that is known.
Authorise = Callable[[Request], Awaitable[str]]

VERSION = "2021-12-02"
RANGE_MD5_BYTES_MAX = 4 * 1024 * 1024
_VERSION_FORM = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_FAILED = Refusal(Fault.INTERNAL, "the gateway failed; its log has the cause under this request id")
# A blob is a file to keep, never a page of this gateway.
_NEVER_A_PAGE = {
    "content-disposition": "attachment",
    "content-security-policy": "default-src 'none'; sandbox",
    "x-content-type-options": "nosniff",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A request that was read as far as its head."""

    request: Request
    target: Target
    query: Mapping[str, str]
    granted: str

    @property
    def headers(self) -> Headers:
        return self.request.headers

    def need(self, permissions: str) -> None:
        if not set(permissions) & set(self.granted):
            wanted = " or ".join(permissions)
            text = f"this request needs the permission {wanted}, and {self.granted!r} was given"
            raise Refusal(Fault.PERMISSION_MISMATCH, text)


class BlobApp:
    """`authorise` None: only signed queries are let in."""

    def __init__(
        self, storage: Storage, secret: bytes, authorise: Authorise | None = None, *, mount: str = MOUNT
    ) -> None:
        self._storage = storage
        self._secret = secret
        self._authorise = authorise
        self._mount = mount
        self._ids = RequestIds()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        request = Request(scope, receive)
        common = self._common(request)
        try:
            response = await self._answer(request)
        except ClientDisconnect:
            # What came of the body is gone already, and nobody waits for an answer.
            return
        except Refusal as refusal:
            response = _refused(request, refusal, common["x-ms-request-id"])
        except Problem as problem:
            response = _refused(request, _refusal_of(problem), common["x-ms-request-id"])
        except Exception:
            log.exception("request %s of the asset storage failed", common["x-ms-request-id"])
            response = _refused(request, _FAILED, common["x-ms-request-id"])
        response.headers.update(common)
        await response(scope, receive, send)

    def _common(self, request: Request) -> dict[str, str]:
        asked = request.headers.get("x-ms-version", "")
        common = {
            "x-ms-request-id": self._ids.next(),
            "x-ms-version": asked if _VERSION_FORM.fullmatch(asked) else VERSION,
        }
        client_id = clean_client_id(request.headers.get("x-ms-client-request-id", "").encode("latin-1"))
        if client_id:
            common["x-ms-client-request-id"] = client_id.decode()
        return common

    async def _answer(self, request: Request) -> Response:
        target = parse_target(raw_path(request), self._mount)
        pairs = read_query(request)
        query = only_once(pairs)
        prefix = query.get("prefix", "")
        granted = await self._granted(request, pairs, target, target.path or prefix)
        refuse_what_is_not_done(request, query)
        call = Call(request=request, target=target, query=query, granted=granted)
        return await (self._of_blob(call) if target.path else self._of_container(call))

    async def _granted(self, request: Request, pairs: sas.Query, target: Target, path: str) -> str:
        if sas.is_signed(pairs):
            return sas.check(self._secret, pairs, target.container, path, self._storage.now())
        if self._authorise is None or "authorization" not in request.headers:
            raise _unknown("the request has neither a signed query nor a bearer token")
        granted = await self._authorise(request)
        if not granted:
            raise _unknown("the bearer token is not known")
        return granted

    async def _of_blob(self, call: Call) -> Response:
        match call.request.method, call.query.get("comp", ""):
            case "HEAD", "":
                return await self._head(call)
            case "GET", "":
                return await self._get(call)
            case "PUT", "":
                return await self._put(call)
            case "PUT", "block":
                return await self._put_block(call)
            case "PUT", "blocklist":
                return await self._put_block_list(call)
            case "PUT", "metadata":
                return await self._put_metadata(call)
            case "DELETE", "":
                return await self._delete(call)
            case method, comp:
                raise _not_done(method, comp, "HEAD, GET, PUT, DELETE")

    async def _of_container(self, call: Call) -> Response:
        """Every container that may be named is there."""
        kind = call.query.get("restype", "")
        match call.request.method, call.query.get("comp", ""):
            case "GET", "list" if kind == "container":
                return await self._list(call)
            case (("GET" | "HEAD"), "") if kind == "container":
                call.need("rl")
                return Response(headers={"etag": '"0x0"', "last-modified": formatdate(0, usegmt=True)})
            case "PUT", "" if kind == "container":
                call.need("wc")
                raise Refusal(Fault.CONTAINER_EXISTS, "the container is there already")
            case method, comp:
                raise _not_done(method, comp, "GET, HEAD, PUT")

    async def _head(self, call: Call) -> Response:
        call.need("r")
        blob = await self._storage.find(call.target)
        try:
            check_read(parse_conditions(call.headers), blob)
        except NotModified:
            return Response(status_code=304, headers=_tags_of(blob))
        return Response(headers=_properties(blob) | {"content-length": str(blob.size_bytes)})

    async def _get(self, call: Call) -> Response:
        call.need("r")
        blob = await self._storage.find(call.target)
        try:
            check_read(parse_conditions(call.headers), blob)
        except NotModified:
            return Response(status_code=304, headers=_tags_of(blob))
        asked = call.headers.get("x-ms-range") or call.headers.get("range")
        part = parse_range(asked, blob.size_bytes) if asked else None
        span = part or Span(first=0, last=blob.size_bytes - 1)
        headers = _properties(blob) | {"content-length": str(span.size_bytes)}
        if part is not None:
            headers["content-range"] = f"bytes {span.first}-{span.last}/{blob.size_bytes}"
            if blob.md5:
                headers["x-ms-blob-content-md5"] = headers.pop("content-md5")
        status = 200 if part is None else 206
        if part is not None and call.headers.get("x-ms-range-get-content-md5", "").lower() == "true":
            return await self._small(blob, span, status, headers)
        return _Content(self._storage, await self._storage.open(blob), span, status, headers)

    async def _small(self, blob: Blob, span: Span, status: int, headers: dict[str, str]) -> Response:
        """A range that is hashed before it is sent."""
        if span.size_bytes > RANGE_MD5_BYTES_MAX:
            text = f"the MD5 of a range is given up to {RANGE_MD5_BYTES_MAX} bytes, not for {span.size_bytes}"
            raise Refusal(Fault.OUT_OF_RANGE, text)
        descriptor = await self._storage.open(blob)
        try:
            body = b"".join([piece async for piece in self._storage.read(descriptor, span)])
        finally:
            await self._storage.close(descriptor)
        headers["content-md5"] = _base64(hashlib.md5(body, usedforsecurity=False).digest())
        return Response(body, status, headers)

    async def _put(self, call: Call) -> Response:
        call.need("wc")
        kind = call.headers.get("x-ms-blob-type")
        if kind is None:
            raise Refusal(Fault.MISSING_HEADER, "x-ms-blob-type is missing; accepted: BlockBlob")
        if kind.lower() != "blockblob":
            raise Refusal(Fault.INVALID_HEADER, f"x-ms-blob-type is {kind[:40]!a}; accepted: BlockBlob")
        check_length(call.headers, self._storage.limits.upload_max_bytes)
        given = read_given(call.headers, md5_header="content-md5")
        blob = await self._storage.put(call.target, call.request.stream(), given, _write_conditions(call))
        return Response(status_code=201, headers=_tags_of(blob) | {"content-md5": _base64(blob.md5)})

    async def _put_block(self, call: Call) -> Response:
        call.need("wc")
        check_length(call.headers, self._storage.limits.block_max_bytes)
        md5 = md5_of(call.headers, "content-md5")
        block_id = call.query.get("blockid", "")
        written = await self._storage.put_block(call.target, block_id, call.request.stream(), md5)
        return Response(status_code=201, headers={"content-md5": _base64(written.md5)})

    async def _put_block_list(self, call: Call) -> Response:
        call.need("wc")
        check_length(call.headers, BLOCK_LIST_BYTES_MAX)
        body = await _read_whole(call.request, BLOCK_LIST_BYTES_MAX)
        md5 = hashlib.md5(body, usedforsecurity=False).digest()
        wanted = md5_of(call.headers, "content-md5")
        if wanted is not None and wanted != md5:
            raise Refusal(Fault.MD5_MISMATCH, "the list of blocks does not have the MD5 that was sent")
        listed = await self._storage.files.run(parse_block_list, body)
        blob = await self._storage.commit(call.target, listed, read_given(call.headers), _write_conditions(call))
        return Response(status_code=201, headers=_tags_of(blob) | {"content-md5": _base64(md5)})

    async def _put_metadata(self, call: Call) -> Response:
        call.need("w")
        conditions = parse_conditions(call.headers)
        blob = await self._storage.set_metadata(call.target, metadata_of(call.headers), conditions)
        return Response(status_code=200, headers=_tags_of(blob))

    async def _delete(self, call: Call) -> Response:
        call.need("d")
        if call.target.is_folder:
            await self._storage.find(call.target)
        await self._storage.delete(call.target, parse_conditions(call.headers))
        return Response(status_code=202, headers={"x-ms-delete-type-permanent": "true"})

    async def _list(self, call: Call) -> Response:
        call.need("l")
        query = call.query
        asked = Listing(
            container=call.target.container,
            service=f"{call.request.url.scheme}://{call.request.url.netloc}{self._mount}/",
            prefix=plain_text(query, "prefix"),
            delimiter=plain_text(query, "delimiter"),
            marker=query.get("marker", ""),
            results_max=results_max(query),
            with_metadata="metadata" in query.get("include", "").lower().split(","),
        )
        after = read_marker(asked.marker)
        found, following = await self._storage.list_blobs(
            asked.container, asked.prefix, asked.delimiter, after, asked.results_max
        )
        body = list_xml(asked, found, write_marker(following))
        return Response(body, media_type="application/xml")


class _Content(StreamingResponse):
    """Part of a file; it is closed when the answer has ended, however it did."""

    def __init__(
        self, storage: Storage, descriptor: int, span: Span, status: int, headers: Mapping[str, str]
    ) -> None:
        super().__init__(storage.read(descriptor, span), status, headers)
        self._storage = storage
        self._descriptor = descriptor

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._storage.close(self._descriptor)


def _refused(request: Request, refusal: Refusal, request_id: str) -> Response:
    fault = refusal.fault
    headers = {"x-ms-error-code": fault.code, **dict(refusal.headers)}
    if request.method == "HEAD":
        return Response(status_code=fault.status, headers=headers)
    at = datetime.now(UTC).isoformat()
    body = error_xml(fault.code, refusal.message, request_id, at)
    return Response(body, fault.status, headers, "application/xml")


def _refusal_of(problem: Problem) -> Refusal:
    """What the files, or whoever authorises, refuse."""
    match problem.code:
        case Code.PAYLOAD_TOO_LARGE:
            return Refusal(Fault.TOO_LARGE, problem.message)
        case Code.INSUFFICIENT_STORAGE:
            # Above the quota no second attempt helps, and clients make several after a status from 500 on.
            fault = Fault.QUOTA_EXCEEDED if problem.reason == "quota" else Fault.NO_SPACE
            return Refusal(fault, problem.message)
        case Code.UNAUTHENTICATED:
            return _unknown(problem.message)
        case Code.FORBIDDEN:
            return Refusal(Fault.PERMISSION_MISMATCH, problem.message)
        case _:
            return Refusal(Fault.SERVER_BUSY if problem.code.status == 503 else Fault.INTERNAL, problem.message)


def _unknown(reason: str) -> Refusal:
    return Refusal(Fault.NO_AUTHENTICATION, reason, (("www-authenticate", "Bearer"),))


def _not_done(method: str, comp: str, allowed: str) -> Refusal:
    if method not in allowed.split(", "):
        return Refusal(
            Fault.UNSUPPORTED_VERB, f"{method} is not done here; accepted: {allowed}", (("allow", allowed),)
        )
    what = f"{method} with comp={comp[:40]!a}" if comp else f"{method} of a container without restype=container"
    return Refusal(Fault.NOT_IMPLEMENTED, f"{what} is not done by this storage")


def _write_conditions(call: Call) -> Conditions:
    """Whoever may only create may not replace."""
    conditions = parse_conditions(call.headers)
    if "w" in call.granted:
        return conditions
    return replace(conditions, matches_none=frozenset("*"))


def _properties(blob: Blob) -> dict[str, str]:
    return {
        **_tags_of(blob),
        **{f"{META}{name}": value for name, value in blob.metadata.items()},
        **_NEVER_A_PAGE,
        **({"content-md5": _base64(blob.md5)} if blob.md5 else {}),
        "accept-ranges": "bytes",
        "content-type": blob.content_type,
        "x-ms-blob-type": "BlockBlob",
        "x-ms-lease-state": "available",
        "x-ms-lease-status": "unlocked",
        "x-ms-server-encrypted": "false",
    }


def _tags_of(blob: Blob) -> dict[str, str]:
    return {"etag": f'"{blob.etag}"', "last-modified": formatdate(blob.modified_at, usegmt=True)}


def _base64(data: bytes) -> str:
    return b64encode(data).decode()


async def _read_whole(request: Request, bytes_max: int) -> bytes:
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > bytes_max:
            raise Refusal(Fault.TOO_LARGE, f"more than {bytes_max} bytes came")
    return bytes(body)
