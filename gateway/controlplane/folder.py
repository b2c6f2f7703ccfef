"""A folder of Azure ML YAML becomes documents, and all that shall be served or all the reasons why not.

Which files: *.yml and *.yaml (any case) in the folder and one level down, hidden ones left out, in order of name;
several documents a file; UTF-8 with or without a byte order mark. Conda files that no environment names are left out
with a note. YAML below a folder of code or of a model that is named belongs to that, unless it is a document of ours.
Two steps: `read_documents_of` gives typed documents of every kind, `read_folder` what of them is served, with the
rules over the whole. A reference to a registered asset cannot be looked up in a folder: it is noted.
Bounds: 1000 files, 1 MB each; depth and expanded values as yaml_text.py says.
Errors: FolderError with every problem of the folder at once, one sentence each: file and line, path of keys, what was
found and what would be accepted. Rules over all documents do not blame the absence of a document that has mistakes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from gateway.controlplane import kinds, rules
from gateway.controlplane.decode import decode, found
from gateway.controlplane.documents import document_type, normal_form
from gateway.controlplane.place import Place
from gateway.controlplane.store.records import Kind
from gateway.controlplane.translate import deployment_of, endpoint_of, notes_of
from gateway.controlplane.yaml_types import EnvironmentYaml, OnlineDeploymentYaml, OnlineEndpointYaml
from gateway.resources import AssetModel, Deployment, Desired, Endpoint, Oidc
from gateway.settings import Settings
from gateway.yaml_text import TEXT_BYTES_MAX, Entries, Node, Scalar, read_documents

FILES_MAX = 1000
_PATH_MAX = 4096

_KEPT = (
    "an online endpoint (name, auth_mode, traffic, ...), an online deployment (name, endpoint_name, model, ...), "
    "a batch endpoint or deployment, a model, an environment, code or data"
)


class FolderError(Exception):
    """Why a folder cannot be served; `problems` holds one sentence each."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderOptions:
    """What the process's settings say for all files: limits, token rules and CPU fallback where a file is silent.

    `content`: where content that is kept lies, by its SHA-256.
    """

    limits: rules.Limits = field(default_factory=rules.Limits)
    oidc: Oidc | None = None
    allow_cpu_fallback: bool = False
    content: Callable[[str], Path] | None = None

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


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderDocument:
    """One document of a file. `file` is relative to the folder; `place` knows its lines, mistakes and notes.

    `kind` is None for what is not kept here. `document` lacks what the mistakes are about; it is None where that is a
    key that it needs.
    """

    file: str
    place: Place
    kind: Kind | None = None
    document: msgspec.Struct | None = None

    @property
    def problems(self) -> list[str]:
        return [f"{self.file}:{mistake}" for mistake in self.place.mistakes]

    def text(self, key: str) -> str:
        """What the file says at a key, "" where that is no text."""
        value = self.place.document.entries.get(key)
        return value.text if isinstance(value, Scalar) else ""


@dataclass(slots=True, kw_only=True)
class Folder:
    """What was read, in the order of the files: documents, and sentences about what is none of ours.

    `is_complete`: everything could be read so far that one can tell what is missing.
    """

    found: list[FolderDocument | str] = field(default_factory=list)
    is_complete: bool = True

    @property
    def documents(self) -> list[FolderDocument]:
        return [one for one in self.found if isinstance(one, FolderDocument) and one.kind is not None]

    @property
    def problems(self) -> list[str]:
        problems: list[str] = []
        for one in self.found:
            problems += [one] if isinstance(one, str) else one.problems
        return problems

    @property
    def notes(self) -> list[str]:
        return [note for one in self.found if isinstance(one, FolderDocument) for note in one.place.notes]

    def fail(self, problem: str) -> None:
        self.found.append(problem)
        self.is_complete = False


def read_folder(path: Path, options: FolderOptions | None = None) -> Desired:
    """Read, check and join every document below the folder. Errors: FolderError."""
    return joined(read_documents_of(path), options or FolderOptions())


def joined(folder: Folder, options: FolderOptions) -> Desired:
    """What of a folder's documents is served, once the rules over all of them are kept. Errors: FolderError."""
    return _Joining(folder=folder, options=options).desired()


def read_documents_of(path: Path) -> Folder:
    """Every document below the folder, with its mistakes. Errors: FolderError where there is nothing to read."""
    parts: list[tuple[Path, Folder]] = []
    for file in _files(path):
        part = Folder()
        _read_file(part, file, file.relative_to(path).as_posix())
        parts.append((file, part))
    content = {one for _, part in parts for source in part.documents for one in _content_of(source)}
    folder = Folder()
    for file, part in parts:
        # A document of ours is one wherever it lies.
        if part.documents or not any(_normal(file).is_relative_to(one) for one in content):
            folder.found += part.found
            folder.is_complete = folder.is_complete and part.is_complete
    return folder


def _content_of(source: FolderDocument) -> Iterator[Path]:
    """Where a document says that its content is: the YAML in there is a script's, a model's or an environment's."""
    document: Any = source.document
    code, model = (getattr(document, key, None) for key in ("code_configuration", "model"))
    environment = getattr(document, "environment", None)
    if isinstance(document, EnvironmentYaml):
        environment = document
    texts = [getattr(code, "code", None), getattr(document, "path", None), getattr(model, "path", model)]
    if isinstance(environment, EnvironmentYaml):
        texts += [environment.conda_file, environment.build.path if environment.build is not None else None]
    here = source.place.file.parent
    for text in texts:
        if isinstance(text, str) and text and len(text) < _PATH_MAX and "\0" not in text:
            named = _normal(here / text)
            # What names its own folder does not make itself unread.
            if not _normal(source.place.file).is_relative_to(named):
                yield named


def _normal(path: Path) -> Path:
    return Path(os.path.normpath(path.absolute()))


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


def _read_file(folder: Folder, file: Path, label: str) -> None:
    try:
        with file.open("rb") as stream:
            data = stream.read(TEXT_BYTES_MAX + 1)
    except OSError as error:
        folder.fail(f"{label}: cannot be read: {error.strerror}")
        return
    documents, mistakes = read_documents(data)
    folder.found += [f"{label}:{mistake}" for mistake in mistakes]
    if mistakes and not documents:
        folder.is_complete = False
    for number, document in enumerate(documents, 1):
        name = label if len(documents) == 1 else f"{label} (document {number})"
        _read_document(folder, document, file, label, name)


def _read_document(folder: Folder, document: Node, file: Path, label: str, name: str) -> None:
    if not isinstance(document, Entries):
        folder.fail(f"{label}:{document.line}: found {found(document)}; accepted: {_KEPT}")
        return
    place = Place(file=file, label=name, document=document)
    words = kinds.kind_of(document)
    if words == kinds.CONDA:
        place.note(
            "channels, dependencies", "this looks like a conda file, which no environment names; it is not read"
        )
        folder.found.append(FolderDocument(file=label, place=place))
    elif words in kinds.KEPT:
        kind = kinds.KEPT[words]
        decoded, place.mistakes = decode(document, document_type(kind))
        if decoded is not None:
            for blame in normal_form(decoded)[1]:
                place.blame(blame.path, blame.text)
        folder.found.append(FolderDocument(file=label, place=place, kind=kind, document=decoded))
    else:
        article = "an" if words[:1] in tuple("aeiou") else "a"
        keys = ", ".join(list(document.entries)[:8]) or "none"
        what = f"this is {article} {words}" if words else f"cannot tell what this is by its keys ({keys})"
        folder.fail(f"{label}:{document.line}: {what}; accepted: {_KEPT}")


@dataclass(slots=True, kw_only=True)
class _Joining:
    """What is served of a folder. A document with mistakes leaves its names in `lost_...`."""

    folder: Folder
    options: FolderOptions
    endpoints: list[Endpoint] = field(default_factory=list)
    deployments: list[Deployment] = field(default_factory=list)
    lost_endpoints: set[str] = field(default_factory=set)
    lost_deployments: set[tuple[str, str]] = field(default_factory=set)
    complete: bool = True

    def desired(self) -> Desired:
        self.complete = self.folder.is_complete
        for one in self.folder.documents:
            self._document(one)
        known = rules.Known(
            endpoints=frozenset(self.lost_endpoints),
            deployments=frozenset(self.lost_deployments),
            complete=self.complete,
        )
        problems = self.folder.problems
        problems += rules.check(self.endpoints, self.deployments, self.options.limits, known)
        if problems:
            raise FolderError(tuple(problems))
        return Desired(
            endpoints={one.name.lower(): one for one in self.endpoints},
            deployments={(one.endpoint_name.lower(), one.name.lower()): one for one in self.deployments},
            notes=tuple(self.folder.notes),
        )

    def _document(self, source: FolderDocument) -> None:
        place = source.place
        match source.kind:
            case Kind.ONLINE_ENDPOINT:
                self._endpoint(source)
            case Kind.ONLINE_DEPLOYMENT:
                self._deployment(source)
            case _ if source.document is not None:
                place.notes.extend(f"{place.label}: {note}" for note in notes_of(source.document))

    def _endpoint(self, source: FolderDocument) -> None:
        decoded, place = source.document, source.place
        is_whole = not place.mistakes
        if isinstance(decoded, OnlineEndpointYaml):
            endpoint = endpoint_of(decoded, place, self.options.oidc)
            if is_whole:
                self.endpoints.append(endpoint)
                return
        name = source.text("name")
        self.complete = self.complete and bool(name)
        self.lost_endpoints.add(name.lower())

    def _deployment(self, source: FolderDocument) -> None:
        decoded, place = source.document, source.place
        is_whole = not place.mistakes
        if isinstance(decoded, OnlineDeploymentYaml):
            deployment = deployment_of(decoded, place, self.options.allow_cpu_fallback)
            if deployment is not None and is_whole:
                if isinstance(deployment.model, AssetModel):
                    place.note("model", f"{deployment.model.reference} is looked up when the folder is applied")
                self.deployments.append(deployment)
                return
        name, endpoint_name = source.text("name"), source.text("endpoint_name")
        self.complete = self.complete and bool(name and endpoint_name)
        self.lost_deployments.add((endpoint_name.lower(), name.lower()))
