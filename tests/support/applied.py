"""A store that does at once what a set of changes says, and folders to apply to it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from gateway.controlplane.apply import ApplyReport, Change, ChangeSet, Wanted, changes, report, settle
from gateway.controlplane.authorize import Actor, Role
from gateway.controlplane.contents import Resolved, resolve
from gateway.controlplane.documents import from_builtins, to_builtins
from gateway.controlplane.export import ExportedDocument, export
from gateway.controlplane.folder import read_documents_of
from gateway.controlplane.store.records import Kind, Resource
from gateway.errors import Code, Problem

ACTOR = Actor(name="ci", role=Role.OPERATOR)

ENDPOINT = "name: digits\ntraffic: {blue: 100}\n"
DEPLOYMENT = "name: blue\nendpoint_name: digits\nmodel: m.onnx\ninstance_type: cpu\n"


def write(folder: Path, **files: str) -> Path:
    """A folder with a model; keyword names become file names, `__` a slash."""
    folder.mkdir(exist_ok=True)
    (folder / "m.onnx").write_bytes(b"a model")
    for name, text in files.items():
        path = folder / (name.replace("__", "/") + ".yml")
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


def read(folder: Path, root: Path | None = None) -> Resolved:
    """What a folder without mistakes wants."""
    found = read_documents_of(folder)
    resolved = resolve(found, root)
    assert found.problems == []
    return resolved


class Stored:
    """What is stored; time passes with each change."""

    def __init__(self, resources: Sequence[Resource] = ()) -> None:
        self.resources = list(resources)
        self.present: set[str] = set()
        self._now = itertools.count(1)

    def put(self, kind: Kind, document: dict[str, Any], *, by: str = "someone", **more: Any) -> Resource:
        """What somebody else made."""
        wanted = Wanted.of(kind, from_builtins(kind, document))
        resource = replace(self._resource(wanted, None), owner="", created_by=by, **more)
        self.resources.append(resource)
        return resource

    def has_content(self, sha256: str, size_bytes: int) -> bool:
        return sha256 in self.present

    def changes(self, wanted: Sequence[Wanted], *, prune: bool = False) -> ChangeSet:
        return changes(self.resources, settle(wanted, self.resources), prune=prune)

    async def apply(
        self, wanted: Sequence[Wanted], actor: Actor, *, prune: bool, dry_run: bool, notes: Sequence[str] = ()
    ) -> ApplyReport:
        found = self.changes(wanted, prune=prune)
        if found.problems:
            raise Problem(Code.INVALID_INPUT, "; ".join(found.problems), details=found.problems)
        if not dry_run:
            self.carry_out(found)
        return report(found, is_done=not dry_run, notes=notes)

    def carry_out(self, found: ChangeSet) -> None:
        assert found.problems == ()
        for change in (*found.upserts, *found.deletes):
            self._do(change)

    def export(self) -> tuple[ExportedDocument, ...]:
        return export(self.resources).documents

    def _do(self, change: Change) -> None:
        others = [one for one in self.resources if one.ref != change.ref]
        if change.wanted is not None:
            others.append(self._resource(change.wanted, change.before))
        self.resources = others

    def _resource(self, wanted: Wanted, before: Resource | None) -> Resource:
        now = float(next(self._now))
        document = to_builtins(wanted.document)
        return Resource(
            ref=wanted.ref,
            name=wanted.name,
            parent_name=wanted.parent_name,
            document=document,
            served=document,
            owner="folder",
            files=wanted.files or (before.files if before else ()),
            created_at=before.created_at if before else now,
            created_by=before.created_by if before else ACTOR.name,
            modified_at=now,
            modified_by=ACTOR.name,
        )


def write_export(stored: Stored, folder: Path, content: dict[str, bytes]) -> Path:
    """An export as `gateway export --content` writes it; `content` by hash."""
    for one in stored.export():
        files = {one.file: one.text.encode()} | {file.path: content[file.sha256] for file in one.files}
        for path, data in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(data)
    return folder


def contents_of(resolved: Resolved) -> dict[str, bytes]:
    """The bytes of everything that a folder wants, by hash."""
    return {sha256: path.read_bytes() for sha256, path in resolved.sources.items()}
