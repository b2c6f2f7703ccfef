"""What must change so that what is stored is what a folder says: a set of changes, and the lines that tell it. Pure.

Ownership: what an applied folder made carries the owner "folder" and is deleted once the folder no longer holds it;
what others made is left alone, unless the folder is said to be the whole truth (`prune`). What the folder names
becomes the folder's. An asset that something refers to is never deleted.
Order: `settle` first (versions that a file does not give, references to the latest), then `changes`; assets before
endpoints before deployments, and deletions the other way round. Applying the same again gives no change.
Errors: sentences in `ChangeSet.problems`; with any, nothing may be changed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import msgspec

from gateway.controlplane.documents import DocumentError, from_builtins, to_builtins
from gateway.controlplane.store.records import ASSETS, AssetFile, Kind, Ref, Resource, State

OWNER = "folder"
NOT_GIVEN = "not given"

_ORDER = (
    Kind.ENVIRONMENT,
    Kind.CODE,
    Kind.DATA,
    Kind.MODEL,
    Kind.ONLINE_ENDPOINT,
    Kind.BATCH_ENDPOINT,
    Kind.ONLINE_DEPLOYMENT,
    Kind.BATCH_DEPLOYMENT,
)
_PARENTS = {
    Kind.ONLINE_DEPLOYMENT: Kind.ONLINE_ENDPOINT,
    Kind.BATCH_DEPLOYMENT: Kind.BATCH_ENDPOINT,
}
_WORDS = {
    Kind.ONLINE_ENDPOINT: "endpoint",
    Kind.ONLINE_DEPLOYMENT: "deployment",
    Kind.BATCH_ENDPOINT: "batch endpoint",
    Kind.BATCH_DEPLOYMENT: "batch deployment",
}
# What may change of a registered version; everything else is its content.
_MUTABLE = ("description", "tags", "properties", "stage", "is_archived")
# Values that may be secrets are not shown.
_HIDDEN = ("environment_variables.", "settings.environment_variables.")
_SHOWN_CHARACTERS = 100
_LATEST = "@latest"
_REFERENCE = "azureml:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A document that shall be there, with its content. `label` says where it was written; `ref.key` of an asset
    without a version is "" until `settle` gave it one."""

    ref: Ref
    name: str
    parent_name: str = ""
    document: msgspec.Struct
    files: tuple[AssetFile, ...] = ()
    label: str = ""

    @classmethod
    def of(cls, kind: Kind, document: Any, *, files: tuple[AssetFile, ...] = (), label: str = "") -> Wanted:
        if kind in ASSETS:
            name, parent = document.version, document.name
        else:
            name, parent = document.name, document.endpoint_name if kind in _PARENTS else ""
        ref = Ref(kind=kind, parent=parent.lower(), key=name.lower())
        return cls(ref=ref, name=name, parent_name=parent, document=document, files=files, label=label)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One resource: `before` is what is stored, `wanted` what shall be; an update or a creation has `wanted`."""

    action: Literal["create", "update", "delete"]
    before: Resource | None = None
    wanted: Wanted | None = None

    @property
    def ref(self) -> Ref:
        if self.wanted is not None:
            return self.wanted.ref
        assert self.before is not None
        return self.before.ref


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeSet:
    """All that must change, in an order in which it may be done."""

    upserts: tuple[Change, ...] = ()
    deletes: tuple[Change, ...] = ()
    unchanged: int = 0
    problems: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        return not (self.upserts or self.deletes or self.problems)


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplyReport:
    """What an apply did, or would do, for a person: a line for each change, and one that counts them."""

    changes: tuple[str, ...] = ()
    summary: str = ""
    notes: tuple[str, ...] = ()
    # The operation that is under way, "" where there is none.
    operation: str = ""


def report(found: ChangeSet, *, is_done: bool, notes: Iterable[str] = (), operation: str = "") -> ApplyReport:
    """The lines and the count."""
    lines = [line for change in (*found.upserts, *found.deletes) for line in describe(change)]
    return ApplyReport(
        changes=tuple(lines), summary=summary(found, is_done=is_done), notes=tuple(notes), operation=operation
    )


def summary(found: ChangeSet, *, is_done: bool) -> str:
    """One line: `1 created, 2 changed, 0 deleted, 5 unchanged`."""
    created = sum(change.action == "create" for change in found.upserts)
    changed, deleted = len(found.upserts) - created, len(found.deletes)
    words = ("created", "changed", "deleted") if is_done else ("to create", "to change", "to delete")
    counts = [f"{count} {word}" for count, word in zip((created, changed, deleted), words, strict=True)]
    return ", ".join([*counts, f"{found.unchanged} unchanged"])


# ---- what is wanted, settled against what is there ---------------------------------------------------------------


def settle(wanted: Sequence[Wanted], stored: Sequence[Resource]) -> list[Wanted]:
    """The same, with a version for each asset and each `azureml:NAME@latest` as the version that it means."""
    settled = list(wanted)
    for index, one in enumerate(wanted):
        if one.ref.kind in ASSETS and not one.ref.key:
            settled[index] = _with_version(one, settled, stored)
    latest = _Latest(settled, stored)
    return [_with_references(one, latest) for one in settled]


def _with_version(one: Wanted, wanted: Sequence[Wanted], stored: Sequence[Resource]) -> Wanted:
    """The latest version where it has this content, else one more than the greatest number."""
    there = [other for other in stored if _is_version_of(other.ref, one.ref)]
    versions = {other.ref.key for other in there}
    versions |= {other.ref.key for other in wanted if _is_version_of(other.ref, one.ref)}
    newest = _newest(there)
    if newest is not None and not _content_differences(one, newest, but=("version",)):
        version = newest.name
    else:
        version = str(1 + max((int(version) for version in versions if version.isdecimal()), default=0))
    document = msgspec.structs.replace(one.document, version=version)
    return Wanted.of(one.ref.kind, document, files=one.files, label=one.label)


def _is_version_of(one: Ref, other: Ref) -> bool:
    return (one.kind, one.parent) == (other.kind, other.parent)


def _newest(resources: Sequence[Resource]) -> Resource | None:
    newest: Resource | None = None
    for one in resources:
        if newest is None or one.created_at >= newest.created_at:
            newest = one
    return newest


class _Latest:
    """The latest version of each asset once the wanted is stored: the last new one, else the newest stored."""

    def __init__(self, wanted: Sequence[Wanted], stored: Sequence[Resource]) -> None:
        self._versions: dict[tuple[Kind, str], str] = {}
        times: dict[tuple[Kind, str], float] = {}
        for resource in stored:
            key = (resource.ref.kind, resource.ref.parent)
            if resource.created_at >= times.get(key, resource.created_at):
                self._versions[key], times[key] = resource.name, resource.created_at
        there = {resource.ref for resource in stored}
        for one in wanted:
            if one.ref.kind in ASSETS and one.ref not in there:
                self._versions[(one.ref.kind, one.ref.parent)] = one.name

    def of(self, kind: Kind, reference: Any) -> Any:
        if not isinstance(reference, str) or not reference.startswith(_REFERENCE):
            return reference
        name, latest, rest = reference.removeprefix(_REFERENCE).partition(_LATEST)
        version = self._versions.get((kind, name.lower())) if latest and not rest else None
        return reference if version is None else f"{_REFERENCE}{name}:{version}"


def _with_references(one: Wanted, latest: _Latest) -> Wanted:
    document: Any = one.document
    if one.ref.kind not in _PARENTS:
        return one
    document = msgspec.structs.replace(
        document,
        model=latest.of(Kind.MODEL, document.model),
        environment=latest.of(Kind.ENVIRONMENT, document.environment),
    )
    return replace(one, document=document)


# ---- changes -----------------------------------------------------------------------------------------------------


def changes(
    stored: Sequence[Resource], wanted: Sequence[Wanted], *, prune: bool = False, spares: bool = False
) -> ChangeSet:
    """What makes the stored the wanted. `wanted` is settled. `spares`: an endpoint that left the folder stays while
    it has deployments of others; else that is a problem."""
    gathering = _Gathering(stored, spares)
    for one in sorted(wanted, key=lambda one: _ORDER.index(one.ref.kind)):
        gathering.want(one)
    gathering.delete(prune)
    return gathering.result()


@dataclass(slots=True)
class _Gathering:
    stored: Sequence[Resource]
    spares: bool = False
    upserts: list[Change] = field(default_factory=list)
    deletes: list[Change] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    wanted: dict[Ref, Wanted] = field(default_factory=dict)

    def result(self) -> ChangeSet:
        return ChangeSet(
            upserts=tuple(self.upserts),
            deletes=tuple(self.deletes),
            unchanged=len(self.wanted) - len(self.upserts),
            problems=tuple(self.problems),
        )

    def want(self, one: Wanted) -> None:
        first = self.wanted.setdefault(one.ref, one)
        if first is not one:
            self.problems.append(f"{one.label}: {title(one)} is in {first.label} too; accepted: one document for it")
            return
        before = next((resource for resource in self.stored if resource.ref == one.ref), None)
        if before is None:
            self.upserts.append(Change(action="create", wanted=one))
            return
        if one.ref.kind in ASSETS and _content_differences(one, before):
            self.problems.append(
                f"{one.label}: {title(one)} is registered with other content, and a version never changes; "
                "accepted: the same content, or another version"
            )
            return
        change = Change(action="update", before=before, wanted=one)
        if any(describe(change)):
            self.upserts.append(change)

    def delete(self, prune: bool) -> None:
        """What the folder no longer holds. Deployments first, then endpoints, then assets that nothing names."""
        doomed = [
            resource
            for resource in self.stored
            if resource.ref.kind in _ORDER and resource.ref not in self.wanted and (prune or resource.owner == OWNER)
        ]
        gone = {resource.ref for resource in doomed if resource.ref.kind not in ASSETS}
        if self.spares:
            spared = {_parent(one.ref) for one in self.stored if one.ref not in gone and one.ref not in self.wanted}
            doomed = [resource for resource in doomed if resource.ref not in spared]
            gone -= {ref for ref in spared if ref is not None}
        needed = self._references(gone)
        for resource in sorted(doomed, key=lambda one: _ORDER.index(one.ref.kind), reverse=True):
            if resource.ref not in needed:
                self.deletes.append(Change(action="delete", before=resource))
        self.problems += [self._homeless(one) for one in self.wanted.values() if _parent(one.ref) in gone]
        orphans = [one for one in self.stored if one.ref not in gone and one.ref not in self.wanted]
        self.problems += [self._orphan(one) for one in orphans if _parent(one.ref) in gone]

    def _references(self, gone: set[Ref]) -> set[Ref]:
        """The assets that what stays refers to, now or once it is changed."""
        needed: set[Ref] = set()
        for resource in self.stored:
            if resource.ref not in gone:
                needed |= references(resource.document) if resource.ref not in self.wanted else set()
                needed |= references(resource.served or {}) if resource.ref not in self.wanted else set()
        for one in self.wanted.values():
            needed |= references(to_builtins(one.document))
        return needed

    def _homeless(self, one: Wanted) -> str:
        return (
            f"{one.label}: {title(one)}: its endpoint {one.parent_name} is no longer in the folder; "
            "add that again, or remove this too"
        )

    def _orphan(self, one: Resource) -> str:
        return (
            f"endpoint {one.parent_name} is no longer in the folder, and its {title(one)} was made by "
            f"{one.created_by}; delete that first, add both to the folder, or prune"
        )


def _parent(ref: Ref) -> Ref | None:
    kind = _PARENTS.get(ref.kind)
    return None if kind is None else Ref(kind=kind, key=ref.parent)


def references(document: dict[str, Any]) -> set[Ref]:
    """The assets that a deployment's document names."""
    code = document.get("code_configuration")
    named = (
        (Kind.MODEL, document.get("model")),
        (Kind.ENVIRONMENT, document.get("environment")),
        (Kind.CODE, code.get("code") if isinstance(code, dict) else None),
    )
    return {found for kind, text in named if (found := _reference(kind, text)) is not None}


def _reference(kind: Kind, text: Any) -> Ref | None:
    if not isinstance(text, str) or not text.startswith(_REFERENCE):
        return None
    name, _, version = text.removeprefix(_REFERENCE).partition(":")
    return Ref(kind=kind, parent=name.lower(), key=version.lower())


# ---- differences, and how they are told --------------------------------------------------------------------------


def describe(change: Change) -> list[str]:
    """Lines for a person, with + for what is made, - for what is deleted, ~ for what is changed, and how."""
    if change.wanted is None:
        assert change.before is not None
        return [f"- {title(change.before)}"]
    said = title(change.wanted)
    if change.before is None:
        return [f"+ {said}{_content(change.wanted.files)}"]
    return [f"~ {said}: {one}" for one in _reasons(change.wanted, change.before)]


def title(one: Wanted | Resource) -> str:
    """What it is, and its name as people write it."""
    words = _WORDS.get(one.ref.kind, one.ref.kind.value)
    if one.ref.kind in ASSETS:
        return f"{words} {one.parent_name}:{one.name}"
    return f"{words} {one.parent_name}/{one.name}" if one.parent_name else f"{words} {one.name}"


def _reasons(wanted: Wanted, before: Resource) -> Iterator[str]:
    document, stored = to_builtins(wanted.document), before.document
    if wanted.ref.kind in ASSETS:
        # The rest is its content, which never changes.
        document, stored = ({key: one[key] for key in _MUTABLE if key in one} for one in (document, stored))
    differences = _Differences(_whole(before), msgspec.to_builtins(wanted.document))
    yield from differences.between(stored, document)
    if before.state is State.FAILED:
        yield f"tried again, for it failed: {before.reason}"
    if before.owner != OWNER:
        yield f"belongs to the folder from now on; it was made by {before.created_by}"


def _content_differences(wanted: Wanted, before: Resource, but: tuple[str, ...] = ()) -> bool:
    """Whether an asset's content is another. Where files are known, they count, and not where they came from."""
    aside = {*_MUTABLE, *but, "name", "is_anonymous", "$schema"}
    if wanted.files or before.files:
        if wanted.files and _sorted(wanted.files) != _sorted(before.files):
            return True
        if wanted.files:
            aside |= {"path"}
    document, stored = to_builtins(wanted.document), before.document
    if wanted.files and isinstance(document.get("build"), dict):
        aside |= {"build"}
    return any(document.get(key) != stored.get(key) for key in {*document, *stored} - aside)


def _sorted(files: Iterable[AssetFile]) -> list[AssetFile]:
    return sorted(files, key=lambda one: one.path)


def _whole(resource: Resource) -> Any:
    """The stored document with its defaults; as it is where this version cannot read it."""
    try:
        return msgspec.to_builtins(from_builtins(resource.ref.kind, resource.document))
    except DocumentError:
        return resource.document


@dataclass(frozen=True, slots=True)
class _Differences:
    """`path: old → new` for each value that differs. What is not given is told as its default, from the whole
    documents."""

    before: Any
    after: Any

    def between(self, before: Any, after: Any, path: tuple[str, ...] = ()) -> Iterator[str]:
        if isinstance(before, dict | None) and isinstance(after, dict | None) and (before or after):
            before, after = before or {}, after or {}
            for key in [*before, *(key for key in after if key not in before)]:
                yield from self.between(before.get(key), after.get(key), (*path, key))
        elif before != after:
            said = f"{self._told(before, self.before, path)} → {self._told(after, self.after, path)}"
            name = ".".join(path)
            yield f"{name}: {'changed' if name.startswith(_HIDDEN) else said}"

    def _told(self, value: Any, whole: Any, path: tuple[str, ...]) -> str:
        if value is None:
            for key in path:
                whole = whole.get(key) if isinstance(whole, dict) else None
            if whole in (None, "", {}, []):
                return NOT_GIVEN
            value = whole
        return _shown(value)


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) and value and value.isprintable() else json.dumps(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."


def _content(files: Sequence[AssetFile]) -> str:
    if not files:
        return ""
    size = sum(one.size_bytes for one in files)
    names = files[0].path if len(files) == 1 else f"{len(files)} files"
    return f" ({names}, {_size(size)})"


def _size(size_bytes: int) -> str:
    size = float(size_bytes)
    for unit in ("bytes", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"
