"""A folder of Azure ML YAML becomes all that shall be served, or all the reasons why not.

Which files: *.yml and *.yaml (any case) in the folder and one level down, hidden ones left out, in order of name;
several documents a file; UTF-8 with or without a byte order mark. Conda files are left out with a note.
Bounds: 1000 files, 1 MB each; depth and expanded values as yaml_text.py says.
Errors: FolderError with every problem of the folder at once, one sentence each: file and line, path of keys, what was
found and what would be accepted. Rules over all documents do not blame the absence of a document that has mistakes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from gateway.controlplane import kinds, rules
from gateway.controlplane.decode import decode, found
from gateway.controlplane.translate import Place, deployment_of, endpoint_of
from gateway.controlplane.yaml_types import OnlineDeploymentYaml, OnlineEndpointYaml
from gateway.resources import Deployment, Desired, Endpoint, Oidc
from gateway.settings import Settings
from gateway.yaml_text import TEXT_BYTES_MAX, Entries, Node, Scalar, read_documents

FILES_MAX = 1000

_SERVED = (
    "an online endpoint (name, auth_mode, traffic, ...) or an online deployment (name, endpoint_name, model, ...)"
)


class FolderError(Exception):
    """Why a folder cannot be served; `problems` holds one sentence each."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderOptions:
    """What the process's settings say for all files: limits, token rules and CPU fallback where a file is silent."""

    limits: rules.Limits = field(default_factory=rules.Limits)
    oidc: Oidc | None = None
    allow_cpu_fallback: bool = False

    @classmethod
    def of(cls, settings: Settings) -> FolderOptions:
        """What the process's settings say."""
        oidc = None
        if settings.oidc_issuer:
            oidc = Oidc(issuer=settings.oidc_issuer, audience=settings.oidc_audience, jwks_uri=settings.oidc_jwks_uri)
        limits = rules.Limits(
            endpoints=settings.endpoints_max,
            deployments=settings.deployments_max,
            deployments_per_endpoint=settings.deployments_per_endpoint_max,
            instances_per_deployment=settings.instances_per_deployment_max,
        )
        return cls(limits=limits, oidc=oidc, allow_cpu_fallback=settings.allow_cpu_fallback)


def read_folder(path: Path, options: FolderOptions | None = None) -> Desired:
    """Read, check and join every document below the folder. Errors: FolderError."""
    reading = _Reading(options=options or FolderOptions())
    for file in _files(path):
        reading.file(file, str(file.relative_to(path)))
    return reading.desired()


def _files(folder: Path) -> list[Path]:
    try:
        if not folder.is_dir():
            what = "is a file" if folder.exists() else "is not there"
            raise FolderError((f"{folder} {what}; accepted: a folder of .yml and .yaml files",))
        files = sorted(_yaml_files(folder, depth=1))
    except OSError as error:
        raise FolderError((f"cannot list {error.filename or folder}: {error.strerror}",)) from error
    if not files:
        raise FolderError((f"{folder} holds no .yml or .yaml file; accepted: at least one online endpoint",))
    if len(files) > FILES_MAX:
        raise FolderError((f"{folder} holds {len(files)} YAML files; accepted: at most {FILES_MAX}",))
    return files


def _yaml_files(folder: Path, depth: int) -> Iterator[Path]:
    for one in folder.iterdir():
        if one.name.startswith("."):
            continue
        if one.suffix.lower() in (".yml", ".yaml") and one.is_file():
            yield one
        elif depth and one.is_dir():
            yield from _yaml_files(one, depth - 1)


@dataclass(slots=True, kw_only=True)
class _Reading:
    """What has been read so far. A document with mistakes leaves its names in `lost`."""

    options: FolderOptions
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    endpoints: list[Endpoint] = field(default_factory=list)
    deployments: list[Deployment] = field(default_factory=list)
    lost_endpoints: set[str] = field(default_factory=set)
    lost_deployments: set[tuple[str, str]] = field(default_factory=set)
    complete: bool = True

    def file(self, file: Path, label: str) -> None:
        try:
            with file.open("rb") as stream:
                data = stream.read(TEXT_BYTES_MAX + 1)
        except OSError as error:
            self._fail(f"{label}: cannot be read: {error.strerror}")
            return
        documents, mistakes = read_documents(data)
        self.problems += [f"{label}:{mistake}" for mistake in mistakes]
        if mistakes and not documents:
            self.complete = False
        for number, document in enumerate(documents, 1):
            name = label if len(documents) == 1 else f"{label} (document {number})"
            self._document(document, file, label, name)

    def desired(self) -> Desired:
        known = rules.Known(
            endpoints=frozenset(self.lost_endpoints),
            deployments=frozenset(self.lost_deployments),
            complete=self.complete,
        )
        self.problems += rules.check(self.endpoints, self.deployments, self.options.limits, known)
        if self.problems:
            raise FolderError(tuple(self.problems))
        return Desired(
            endpoints={one.name.lower(): one for one in self.endpoints},
            deployments={(one.endpoint_name.lower(), one.name.lower()): one for one in self.deployments},
            notes=tuple(self.notes),
        )

    def _document(self, document: Node, file: Path, label: str, name: str) -> None:
        if not isinstance(document, Entries):
            self._fail(f"{label}:{document.line}: found {found(document)}; accepted: {_SERVED}")
            return
        kind = kinds.kind_of(document)
        place = Place(file=file, label=name, document=document)
        if kind == kinds.ENDPOINT:
            self._endpoint(document, place)
        elif kind == kinds.DEPLOYMENT:
            self._deployment(document, place)
        elif kind == kinds.CONDA:
            place.note("channels, dependencies", "this looks like a conda file; it is not read")
        elif kind:
            article = "an" if kind[0] in "aeiou" else "a"
            self._fail(f"{label}:{document.line}: this is {article} {kind}; accepted: {_SERVED}")
        else:
            keys = ", ".join(list(document.entries)[:8]) or "none"
            self._fail(f"{label}:{document.line}: cannot tell what this is by its keys ({keys}); accepted: {_SERVED}")
        self.problems += [f"{label}:{mistake}" for mistake in place.mistakes]
        self.notes += place.notes

    def _endpoint(self, document: Entries, place: Place) -> None:
        decoded, place.mistakes = decode(document, OnlineEndpointYaml)
        is_whole = not place.mistakes
        endpoint = endpoint_of(decoded, place, self.options.oidc) if decoded is not None else None
        if endpoint is not None and is_whole:
            self.endpoints.append(endpoint)
            return
        name = _text(document, "name")
        self.complete = self.complete and bool(name)
        self.lost_endpoints.add(name.lower())

    def _deployment(self, document: Entries, place: Place) -> None:
        decoded, place.mistakes = decode(document, OnlineDeploymentYaml)
        is_whole = not place.mistakes
        fallback = self.options.allow_cpu_fallback
        deployment = deployment_of(decoded, place, fallback) if decoded is not None else None
        if deployment is not None and is_whole:
            self.deployments.append(deployment)
            return
        name, endpoint_name = _text(document, "name"), _text(document, "endpoint_name")
        self.complete = self.complete and bool(name and endpoint_name)
        self.lost_deployments.add((endpoint_name.lower(), name.lower()))

    def _fail(self, problem: str) -> None:
        self.problems.append(problem)
        self.complete = False


def _text(document: Entries, key: str) -> str:
    value = document.entries.get(key)
    return value.text if isinstance(value, Scalar) else ""
