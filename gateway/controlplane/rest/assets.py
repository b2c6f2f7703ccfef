"""Registered assets: containers, which are names, and their versions; and where new content is uploaded to.

A version's content never changes; its description, tags, properties and whether it is archived may.
Shapes: ARM's, by controlplane/arm. Errors: Problem.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gateway.controlplane.matching import etag_of
from gateway.controlplane.rest import convert, paging
from gateway.controlplane.rest.context import Call, Reply
from gateway.controlplane.rest.query import HASH, NAME, PROPERTIES, TAGS, VIEW, filters, has_all
from gateway.controlplane.store.records import Kind, Page, Ref, Resource
from gateway.errors import Code, Problem

UPLOAD_TYPES = ("temporaryblobreference", "none")
# The segment of the blob routes that stands for this gateway's one storage account.
ACCOUNT = "a"


@dataclass(frozen=True, slots=True)
class Family:
    """The handlers of one kind of asset, as the table names them."""

    kind: Kind

    def ref(self, call: Call) -> Ref:
        return Ref(kind=self.kind, parent=call.params["asset"].lower(), key=call.params["version"].lower())

    # Containers.

    async def containers(self, call: Call) -> Reply:
        query = call.query
        name, view = query.text(NAME).lower(), query.choice(VIEW)

        versions = await call.read(lambda tx: tx.find(self.kind, name or None))
        by_name: dict[str, list[Resource]] = {}
        for one in versions:
            by_name.setdefault(one.ref.parent, []).append(one)
        # What deployments brought along has no name that anybody gave it; it is found by asking for it.
        named = [one for one in by_name.values() if name or not one[-1].document.get("is_anonymous")]
        found = [one for one in named if _is_in_view(_is_archived_all(one), view)]
        page = paging.sliced(call, found)
        return paging.reply(call, page, [convert.container_body(call, one) for one in page.items])

    async def container(self, call: Call) -> Reply:
        key = call.params["asset"].lower()
        versions = await call.read(lambda tx: tx.find(self.kind, key))
        if not versions:
            raise Problem(Code.NOT_FOUND, f"there is no {self.kind} {call.params['asset']!r}")
        return Reply(body=convert.container_body(call, versions))

    # Versions.

    async def get(self, call: Call) -> Reply:
        resource = await self._need(call)
        call.match_read(resource)
        if call.is_known(resource):
            return Reply(status=304, headers={"etag": etag_of(resource.version)})
        return _shown(call, resource)

    async def list(self, call: Call) -> Reply:
        keep = _filter_of(call)
        if self.kind is Kind.CODE and call.query.text(HASH):
            return await self._of_content(call, keep)
        page = await paging.resources(call, self.kind, call.params["asset"].lower(), keep)
        return paging.reply(call, page, [convert.body_of(call, one) for one in page.items])

    async def put(self, call: Call) -> Reply:
        body = await call.json()
        ref = self.ref(call)
        existing = await call.read(lambda tx: tx.get(ref))
        name, version = call.params["asset"], call.params["version"]
        document = convert.document_of(self.kind, body, (name, version), existing)
        accepted = await call.control.put_asset(self.kind, name, version, document, call.actor, match=call.match)
        return _shown(call, accepted.resource, 201 if accepted.created else 200)

    async def delete(self, call: Call) -> Reply:
        was_there = await call.control.delete_asset(self.ref(call), call.actor, match=call.match)
        return Reply(status=200 if was_there else 204)

    async def _need(self, call: Call) -> Resource:
        ref = self.ref(call)
        resource = await call.read(lambda tx: tx.get(ref))
        if resource is None:
            name, version = call.params["asset"], call.params["version"]
            raise Problem(Code.NOT_FOUND, f"there is no {self.kind} {name!r} version {version!r}")
        return resource

    async def _of_content(self, call: Call, keep: Callable[[Resource], bool]) -> Reply:
        """Code of this content under any name: who has it uploaded need not do so again."""
        wanted = call.query.text(HASH)

        def is_same(resource: Resource) -> bool:
            return keep(resource) and resource.document.get("properties", {}).get("hash_sha256") == wanted

        found: Page[Resource] = await paging.resources(call, self.kind, None, is_same)
        return paging.reply(call, found, [convert.body_of(call, one) for one in found.items])


MODELS = Family(Kind.MODEL)
ENVIRONMENTS = Family(Kind.ENVIRONMENT)
CODES = Family(Kind.CODE)
DATA = Family(Kind.DATA)


async def start_upload(call: Call) -> Reply:
    """POST .../versions/{v}/startPendingUpload: a new container, and a link that may write there for a while."""
    kind = (await call.json()).get("pendingUploadType")
    if kind is not None and (not isinstance(kind, str) or kind.lower() not in UPLOAD_TYPES):
        raise Problem(
            Code.INVALID_INPUT, f"pendingUploadType is {kind!r:.60}; accepted: TemporaryBlobReference, or none"
        )
    upload = call.services.new_id()
    container = f"upload-{upload}"
    uri = f"{call.base}/blob/{ACCOUNT}/{container}"
    credential = {"credentialType": "SAS", "sasUri": f"{uri}?{call.services.link(container, 'racwl')}"}
    blob = {"blobUri": uri, "storageAccountArmId": "", "credential": credential}
    return Reply(
        body={
            "pendingUploadId": upload,
            "pendingUploadType": "TemporaryBlobReference",
            "blobReferenceForConsumption": blob,
        }
    )


def _shown(call: Call, resource: Resource, status: int = 200) -> Reply:
    body = convert.body_of(call, resource)
    return Reply(status=status, body=body, headers={"etag": etag_of(resource.version)})


def _is_archived(document: dict[str, Any]) -> bool:
    return bool(document.get("is_archived", False))


def _is_archived_all(versions: list[Resource]) -> bool:
    return all(_is_archived(one.document) for one in versions)


def _is_in_view(is_archived: bool, view: str) -> bool:
    return view == "All" or is_archived == (view == "ArchivedOnly")


def _filter_of(call: Call) -> Callable[[Resource], bool]:
    query = call.query
    view, tags, properties = query.choice(VIEW), filters(query.text(TAGS)), filters(query.text(PROPERTIES))

    def keep(resource: Resource) -> bool:
        document = resource.document
        return (
            _is_in_view(_is_archived(document), view)
            and has_all(document.get("tags", {}), tags)
            and has_all(document.get("properties", {}), properties)
        )

    return keep
