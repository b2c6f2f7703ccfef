"""Names at the edge: ARM ids, asset references and addresses of stored content, read leniently and written exactly.

Why exactly: clients match the ids that they are given with a regular expression that minds the case.
Read: ids in any case, with or without the leading slash. Inside, an asset is `azureml:NAME:VERSION` or
`azureml:NAME@latest`, and a compute `azureml:NAME`.
Errors: IdError, one sentence with what was found and what would be accepted. Pure.
Source: the ids of Azure Machine Learning workspaces, their `azureml:` short forms, and blob addresses.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from gateway.controlplane.store.records import Kind, Ref

PROVIDER = "Microsoft.MachineLearningServices"

# The collection that holds each kind's resources, as its ids spell it.
COLLECTIONS = {
    Kind.ONLINE_ENDPOINT: "onlineEndpoints",
    Kind.ONLINE_DEPLOYMENT: "deployments",
    Kind.BATCH_ENDPOINT: "batchEndpoints",
    Kind.BATCH_DEPLOYMENT: "deployments",
    Kind.MODEL: "models",
    Kind.ENVIRONMENT: "environments",
    Kind.CODE: "codes",
    Kind.DATA: "data",
    Kind.ROLLOUT: "rollouts",
}
_PARENTS = {
    Kind.ONLINE_DEPLOYMENT: "onlineEndpoints",
    Kind.BATCH_DEPLOYMENT: "batchEndpoints",
    Kind.ROLLOUT: "onlineEndpoints",
}
_ASSETS = (Kind.MODEL, Kind.ENVIRONMENT, Kind.CODE, Kind.DATA)
_SPELLED = {
    one.lower(): one
    for one in (*COLLECTIONS.values(), "versions", "labels", "computes", "datastores", "jobs", "endpoints")
}

_NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,254}"
_REFERENCE = re.compile(rf"azureml:(?P<name>{_NAME})(?::(?P<version>[A-Za-z0-9_.-]{{1,255}})|@latest)")
_ASSET_URI = re.compile(
    rf"azureml://(?:.*/)?(?P<type>[A-Za-z]+)/(?P<name>{_NAME})/(?P<how>versions|labels)/(?P<which>[^/]+)"
)
_DATASTORE_URI = re.compile(r"azureml://(?:.*/)?datastores/(?P<datastore>[^/]+)/paths/(?P<path>.*)", re.IGNORECASE)
_COMPUTE = re.compile(rf"(?:azureml:)?(?P<name>{_NAME})")
_ACCOUNT = re.compile(r"a|a\.blob\..+", re.IGNORECASE)
_FOUND_CHARS = 200


class IdError(ValueError):
    """A text is no id or reference of the kind that belongs here."""


@dataclass(frozen=True, slots=True)
class Workspace:
    """The three names that stand in front of every resource. A gateway takes any of them and gives them back."""

    subscription: str
    group: str
    name: str

    @property
    def id(self) -> str:
        return (
            f"/subscriptions/{self.subscription}/resourceGroups/{self.group}"
            f"/providers/{PROVIDER}/workspaces/{self.name}"
        )

    def child(self, *segments: str) -> str:
        """The id of what is below: `child("onlineEndpoints", "digits")`."""
        return "/".join((self.id, *segments))


@dataclass(frozen=True, slots=True)
class ArmId:
    """An id taken apart: `path` has the types as ids spell them and the names as they were given."""

    workspace: Workspace
    path: tuple[tuple[str, str], ...]

    def name_of(self, type_: str) -> str:
        """The name after a type; "" where it is not there."""
        return dict(self.path).get(type_, "")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredAt:
    """Where content is: a path below a datastore, or below a container; the other one is ""."""

    datastore: str = ""
    container: str = ""
    path: str


def parse(text: str) -> ArmId:
    """An ARM id below a workspace, in any case. Errors: IdError."""
    segments = text.strip("/").split("/")
    heads = [one.lower() for one in segments[:8:2]]
    is_workspace = heads == ["subscriptions", "resourcegroups", "providers", "workspaces"]
    if not (is_workspace and segments[5].lower() == PROVIDER.lower() and len(segments) % 2 == 0 and all(segments)):
        sample = Workspace("S", "G", "W").child("models", "N", "versions", "V")
        raise IdError(f"found {_shown(text)}; accepted: an id such as {sample}")
    rest = segments[8:]
    pairs = zip(rest[::2], rest[1::2], strict=True)
    return ArmId(
        Workspace(segments[1], segments[3], segments[7]),
        tuple((_SPELLED.get(type_.lower(), type_), name) for type_, name in pairs),
    )


def resource_id(workspace: Workspace, kind: Kind, name: str, parent_name: str = "") -> str:
    """The id of a resource; an asset's `parent_name` is its name and `name` its version."""
    if kind in _ASSETS:
        return workspace.child(COLLECTIONS[kind], parent_name, "versions", name)
    if kind in _PARENTS:
        return workspace.child(_PARENTS[kind], parent_name, COLLECTIONS[kind], name)
    return workspace.child(COLLECTIONS[kind], name)


def resource_type(kind: Kind) -> str:
    """The `type` member of a resource."""
    inside = (_PARENTS[kind], COLLECTIONS[kind]) if kind in _PARENTS else (COLLECTIONS[kind],)
    version = ("versions",) if kind in _ASSETS else ()
    return "/".join((PROVIDER, "workspaces", *inside, *version))


# ---- assets ----------------------------------------------------------------------------------------------------


def asset_reference(text: str, kind: Kind) -> str:
    """`azureml:NAME:VERSION` or `azureml:NAME@latest`, of any form that names an asset. Errors: IdError."""
    given = text.strip()
    lower = given.lower()
    if "registries/" in lower:
        raise IdError(
            f"found {_shown(given)}, and registries are not served here; register the {kind.value} in this workspace "
            f"and give azureml:NAME:VERSION"
        )
    found: str | None
    if lower.startswith("azureml://"):
        found = _of_uri(given, kind)
    elif lower.startswith("azureml:/subscriptions/") or lower.lstrip("/").startswith("subscriptions/"):
        found = _of_id(given.removeprefix("azureml:"), kind)
    else:
        found = given if _REFERENCE.fullmatch(given) else None
    if found is None:
        raise IdError(
            f"found {_shown(text)}; accepted: azureml:NAME:VERSION, azureml:NAME@latest, or the id of a "
            f"{kind.value} ({Workspace('S', 'G', 'W').child(COLLECTIONS[kind], 'NAME', 'versions', 'VERSION')})"
        )
    return found


def is_asset_reference(text: str) -> bool:
    """Whether a text means a registered asset and not a local path."""
    lower = text.strip().lower()
    return lower.startswith(("azureml:", "/subscriptions/")) and _DATASTORE_URI.fullmatch(text.strip()) is None


def asset_ref(reference: str, kind: Kind) -> Ref | None:
    """The row that a reference in stored form names; None for @latest, and for what is no such reference."""
    found = _REFERENCE.fullmatch(reference)
    if found is None or found["version"] is None:
        return None
    return Ref(kind=kind, parent=found["name"].lower(), key=found["version"].lower())


def asset_id(workspace: Workspace, kind: Kind, reference: str) -> str:
    """The ARM id of a reference in stored form; a text of another form (a local path) as it is."""
    found = _REFERENCE.fullmatch(reference)
    if found is None:
        return reference
    how = ("versions", found["version"]) if found["version"] else ("labels", "latest")
    return workspace.child(COLLECTIONS[kind], found["name"], *how)


def _of_uri(text: str, kind: Kind) -> str | None:
    found = _ASSET_URI.fullmatch(text)
    if found is None:
        return None
    return _reference(found["type"], found["name"], found["how"], found["which"], kind)


def _of_id(text: str, kind: Kind) -> str | None:
    try:
        path = parse(text).path
    except IdError:
        return None
    if len(path) != 2:
        return None
    (type_, name), (how, which) = path
    return _reference(type_, name, how, which, kind)


def _reference(type_: str, name: str, how: str, which: str, kind: Kind) -> str | None:
    if type_.lower() != COLLECTIONS[kind].lower():
        return None
    text = f"azureml:{name}@{which}" if how.lower() == "labels" else f"azureml:{name}:{which}"
    return text if _REFERENCE.fullmatch(text) else None


# ---- computes --------------------------------------------------------------------------------------------------


def compute_reference(text: str) -> str:
    """`azureml:NAME` of a compute's id, `azureml:NAME` or bare name; "" for "". Errors: IdError."""
    given = text.strip()
    if not given:
        return ""
    if given.lower().lstrip("/").startswith("subscriptions/"):
        name = parse(given).name_of("computes")
    else:
        found = _COMPUTE.fullmatch(given)
        name = found["name"] if found else ""
    if not name:
        raise IdError(f"found {_shown(text)}; accepted: azureml:NAME, or the id of a compute")
    return f"azureml:{name}"


def compute_id(workspace: Workspace, reference: str) -> str:
    """The ARM id of a compute in stored form; "" for ""."""
    return workspace.child("computes", reference.removeprefix("azureml:")) if reference else ""


# ---- addresses of content --------------------------------------------------------------------------------------


def stored_at(uri: str) -> StoredAt | None:
    """Where an address points to in this gateway's storage; None for addresses of other things.

    Datastore addresses in the short and the long form, and https addresses whose path begins with /blob/, with or
    without the account's segment; a query (the signature) is left out. Errors: IdError for paths that climb.
    """
    text = uri.strip()
    found = _DATASTORE_URI.fullmatch(text)
    if found is not None:
        return StoredAt(datastore=found["datastore"], path=_clean(found["path"], uri))
    try:
        parts = urlsplit(text)
    except ValueError:
        return None
    segments = parts.path.split("/")
    if parts.scheme.lower() not in ("http", "https") or len(segments) < 3 or segments[1].lower() != "blob":
        return None
    names = [unquote(one) for one in segments[2:]]
    if len(names) > 1 and _ACCOUNT.fullmatch(names[0]):
        names = names[1:]
    return StoredAt(container=_clean(names[0], uri), path=_clean("/".join(names[1:]), uri))


def datastore_uri(workspace: Workspace, datastore: str, path: str) -> str:
    """The long form of an address, as clients write it when they register what they uploaded."""
    return (
        f"azureml://subscriptions/{workspace.subscription}/resourcegroups/{workspace.group}"
        f"/workspaces/{workspace.name}/datastores/{datastore}/paths/{path}"
    )


def _clean(path: str, uri: str) -> str:
    """The path without slashes at its ends. Errors: IdError where it climbs or holds what no path holds."""
    clean = path.strip("/")
    bad = any(one in ("", ".", "..") for one in clean.split("/")) if clean else False
    if bad or "\\" in clean or any(ord(one) < 32 or ord(one) == 127 for one in clean):
        raise IdError(
            f"found {_shown(uri)}; accepted: a path without empty segments, '.', '..' and control characters"
        )
    return clean


def _shown(text: str) -> str:
    return repr(text if len(text) <= _FOUND_CHARS else text[: _FOUND_CHARS - 3] + "...")
