"""A folder and a running gateway: apply the one to the other, see how they differ, and write down what is there.

The folder is read here, so that mistakes are told with file and line; what it means for what is served is decided by
the gateway. Content that the gateway has is not sent again.
Units: *_s seconds.
Errors: FolderError, RemoteError.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from gateway.cli.remote import Remote, RemoteError
from gateway.controlplane.apply_bundle import Applied, bundle_of, is_inside, uploads_of
from gateway.controlplane.contents import Resolved, resolve
from gateway.controlplane.export import Exported
from gateway.controlplane.folder import Folder, FolderError, read_documents_of

CONTAINER = "azureml"
# Content by its hash, whatever its name.
CONTENT = "/blob/sha256"
# Any names of a subscription and a workspace mean the one that there is.
SUBSCRIPTION = "/subscriptions/gateway"
OPERATIONS = f"{SUBSCRIPTION}/providers/Microsoft.MachineLearningServices/locations/local/mfeOperationsStatus"
_ASK_AGAIN_S = 1.0

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """How much an export wrote, or its one text."""

    documents: int
    files: int = 0
    text: str = ""


def read(path: Path, say: Say) -> Resolved:
    """The folder with its content. Errors: FolderError with every problem of it."""
    folder: Folder = read_documents_of(path)
    found = resolve(folder, root=path)
    problems = folder.problems
    if not problems and not found.wanted:
        problems = [f"{path} holds no document of a gateway; accepted: at least one endpoint, deployment or asset"]
    if problems:
        raise FolderError(tuple(problems))
    for note in folder.notes:
        say(f"note: {note}")
    return found


def apply(remote: Remote, path: Path, *, prune: bool, dry_run: bool, say: Say) -> Applied:
    """Make the gateway what the folder says, as one change; returns when it is served. Errors: see above."""
    found = read(path, say)
    body = msgspec.to_builtins(bundle_of(found.wanted, prune=prune, dry_run=dry_run))

    def send() -> Applied:
        return _applied(remote.ask_patiently("POST", "/apply", body, lambda why: say(f"waiting: {why}")))

    answer = send()
    if answer.missing:
        _upload(remote, found, answer.missing, say)
        answer = send()
    if answer.missing:
        raise RemoteError(f"the gateway misses content that it was sent: {', '.join(answer.missing)}; see its log")
    if answer.operation:
        _wait(remote, answer.operation)
    return answer


def _applied(answer: Any) -> Applied:
    try:
        return msgspec.convert(answer, Applied)
    except msgspec.ValidationError as error:
        raise _strange(error) from error


def _upload(remote: Remote, found: Resolved, missing: tuple[str, ...], say: Say) -> None:
    places = uploads_of(found.wanted)
    sizes = {file.sha256: file.size_bytes for one in found.wanted for file in one.files}
    for sha256 in missing:
        if sha256 not in places:
            raise RemoteError(f"the gateway asks for content that the folder does not have: {sha256}")
        source = found.sources[sha256]
        say(f"uploading {source.name} ({sizes[sha256]} bytes)")
        remote.upload(CONTAINER, places[sha256], source, sha256, sizes[sha256])


def _wait(remote: Remote, operation: str) -> None:
    waited = 0.0
    while True:
        found = remote.ask("GET", f"{OPERATIONS}/{operation}")
        if found["status"] != "InProgress":
            break
        if waited >= remote.timeout_s:
            raise RemoteError(f"the change is not carried out after {waited:g} s and goes on; see gateway status")
        remote.sleep(_ASK_AGAIN_S)
        waited += _ASK_AGAIN_S
    if found["status"] != "Succeeded":
        error = found.get("error") or {}
        raise RemoteError(*str(error.get("message") or f"the change ended {found['status']}").splitlines())


def export(remote: Remote, target: Path | None, *, content: bool, say: Say) -> Written:
    """Write what is stored into a folder, or give it as one text. Errors: RemoteError."""
    found = _exported(remote.ask("GET", "/export"))
    kept = [one for one in found.documents if content or not one.files]
    for one in found.documents:
        if one not in kept:
            say(f"note: {one.file} is left out, for it has content (--content); it stays registered")
    if target is None:
        return Written(documents=len(kept), text="".join(f"---\n# {one.file}\n{one.text}" for one in kept))
    files = [file for one in kept for file in one.files]
    for path in (*(one.file for one in kept), *(file.path for file in files)):
        if not is_inside(path):
            raise RemoteError(f"the gateway names a file {path[:100]!r}, which leads out of the folder")
    _need_empty(target)
    try:
        for one in kept:
            _new(target, one.file).write_text(one.text, encoding="utf-8")
        for file in files:
            remote.download(f"{CONTENT}/{file.sha256}", _new(target, file.path), file.sha256)
    except OSError as error:
        raise RemoteError(f"cannot write {error.filename or target}: {error.strerror}") from error
    return Written(documents=len(kept), files=len(files))


def _exported(answer: Any) -> Exported:
    try:
        return msgspec.convert(answer, Exported)
    except msgspec.ValidationError as error:
        raise _strange(error) from error


def _strange(error: Exception) -> RemoteError:
    return RemoteError(f"the gateway's answer cannot be read: {error}; is it of another version?")


def _need_empty(target: Path) -> None:
    try:
        target.mkdir(parents=True, exist_ok=True)
        if any(target.iterdir()):
            raise RemoteError(f"{target} is not empty; accepted: a new or empty folder")
    except OSError as error:
        raise RemoteError(f"cannot use {target} for an export: {error.strerror}") from error


def _new(target: Path, path: str) -> Path:
    file = target / path
    file.parent.mkdir(parents=True, exist_ok=True)
    return file
