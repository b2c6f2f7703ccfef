"""Where a request points: the container and the blob's name in its path, or a refusal.

    /blob/a/{container}/{name}                     the account that the gateway tells its clients
    /blob/a.blob.{suffix}/{container}/{name}       the same, as clients spell it that make host names of accounts
    /blob/{container}/{name}                       the same, without account

Names end as files below a folder, so whatever could leave it, or could not be a file's name, is refused here, once:
before a name is stored, and whoever asks. Escapes are undone once and must be UTF-8.
Units: names up to 1024 characters, a segment of one up to 255 bytes, as file systems have it.
Errors: Refusal InvalidUri, InvalidResourceName.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from gateway.controlplane.blobs.refusals import Fault, Refusal

ACCOUNT = "a"
MOUNT = "/blob"
# The container of the default datastore, the folder in it that clients upload to, and how the names of containers
# begin that are made for one upload each.
DATASTORE = "azureml"
UPLOADS = "LocalUpload"
PENDING = "upload-"
# Content by its hash, whatever names it has: to be read only.
BY_HASH = "sha256"
NAME_CHARS_MAX = 1024
SEGMENT_BYTES_MAX = 255
# Not a container's name, and so never taken for one: shorter than three characters, or with dots.
_ACCOUNT = re.compile(rf"{ACCOUNT}|[A-Za-z0-9-]{{1,63}}\.blob\.[A-Za-z0-9.-]{{1,200}}")
_CONTAINER = re.compile(r"[a-z0-9](?:-?[a-z0-9])*")
_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})?")
# Control characters, lone halves of characters, what no XML document may hold, and the last of all characters, which
# marks the end of a folder in lists.
_UNWRITABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff\U0010ffff]")
LAST = "\U0010ffff"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A container, and a blob in it; "" means the container itself."""

    container: str
    path: str = ""

    @property
    def is_folder(self) -> bool:
        """Clients ask for a blob of this name to learn whether a folder is one. There is none."""
        return self.path.endswith("/")


def parse_target(raw_path: bytes, mount: str = MOUNT) -> Target:
    """`raw_path` is the request's path as it was sent, without the query."""
    head = f"{mount}/".encode()
    if not raw_path.startswith(head):
        raise _unclear("begins elsewhere")
    rest = decode(raw_path[len(head) :])
    first, _, after = rest.partition("/")
    if _ACCOUNT.fullmatch(first):
        first, _, after = after.partition("/")
    if not first:
        raise _unclear("names no container")
    return Target(container=check_container(first), path=check_path(after) if after else "")


def decode(raw: bytes) -> str:
    """Undo the escapes, strictly."""

    def character(escape: re.Match[bytes]) -> bytes:
        if escape[1] is None:
            raise _unclear("has a % that begins no escape such as %20")
        return bytes((int(escape[1], 16),))

    try:
        return _ESCAPE.sub(character, raw).decode()
    except UnicodeDecodeError as error:
        raise _unclear("is not UTF-8 once its escapes are undone") from error


def check_container(name: str) -> str:
    if not 3 <= len(name) <= 63 or not _CONTAINER.fullmatch(name):
        raise Refusal(
            Fault.INVALID_RESOURCE_NAME,
            f"{_shown(name)} is no container's name: 3 to 63 lower-case letters, digits and single hyphens",
        )
    return name


def check_path(path: str) -> str:
    """The blob's name, or the reason why it is none. One `/` at the end is left to those who ask for a folder."""
    if len(path) > NAME_CHARS_MAX:
        raise _bad_name(path, f"it has {len(path)} characters; at most {NAME_CHARS_MAX} are accepted")
    if "\\" in path or _UNWRITABLE.search(path):
        raise _bad_name(path, "it has a backslash or a control character")
    for segment in path.removesuffix("/").split("/"):
        if segment in ("", ".", ".."):
            raise _bad_name(path, "each part between slashes must have a name, and not . or ..")
        if len(segment.encode()) > SEGMENT_BYTES_MAX:
            raise _bad_name(path, f"a part between slashes is longer than {SEGMENT_BYTES_MAX} bytes")
    return path


def is_writable(text: str) -> bool:
    """Whether a name could hold it."""
    return len(text) <= NAME_CHARS_MAX and _UNWRITABLE.search(text) is None


def _bad_name(path: str, reason: str) -> Refusal:
    return Refusal(Fault.INVALID_RESOURCE_NAME, f"{_shown(path)} is no blob's name: {reason}")


def _unclear(reason: str) -> Refusal:
    return Refusal(Fault.INVALID_URI, f"the path {reason}; accepted: {MOUNT}/{ACCOUNT}/<container>/<name>")


def _shown(name: str) -> str:
    """A name that is safe in a message: escaped, and not longer than a line."""
    return ascii(name if len(name) <= 80 else f"{name[:80]}...")
