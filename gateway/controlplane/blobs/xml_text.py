"""The XML of the Blob protocol: errors, lists of blobs, and the lists of blocks that clients put.

A list of blocks is read in one pass, without a tree. A document with a DOCTYPE, or any other `<!`, is refused before
it is parsed, and so is every encoding but UTF-8, in which one could hide.
Units: at most 50,000 blocks and 8 MiB.
Errors: Refusal InvalidXmlDocument, InvalidBlockList, BlockCountExceedsLimit.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from email.utils import formatdate
from typing import Literal
from xml.etree.ElementTree import ParseError, XMLParser
from xml.sax.saxutils import escape

from gateway.controlplane.blobs.refusals import Fault, Refusal
from gateway.controlplane.store.records import Blob

BLOCKS_MAX = 50_000
BLOCK_LIST_BYTES_MAX = 8 * 1024 * 1024
_HEAD = '<?xml version="1.0" encoding="utf-8"?>'
_SHAPE = "accepted: <BlockList> with <Latest>, <Uncommitted> or <Committed> in it, each with a block's id"
# What no XML document may hold, not even as an escape.
_UNWRITABLE = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """An item of a block list: where to look for the block."""

    where: Literal["Latest", "Committed", "Uncommitted"]
    block_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """What a list was asked for, as it is said back to the client. `prefixes` are the folders below the prefix."""

    container: str
    service: str
    prefix: str = ""
    delimiter: str = ""
    marker: str = ""
    results_max: int
    with_metadata: bool = False


def error_xml(code: str, message: str, request_id: str, at: str) -> bytes:
    text = f"{message}\nRequestId:{request_id}\nTime:{at}"
    return f"{_HEAD}<Error>{_element('Code', code)}{_element('Message', text)}</Error>".encode()


def list_xml(asked: Listing, found: Sequence[Blob | str], next_marker: str) -> bytes:
    """`found`: blobs, and the names of folders, in order."""
    parts = [_HEAD, f'<EnumerationResults ServiceEndpoint="{_quoted(asked.service)}" ']
    parts.append(f'ContainerName="{_quoted(asked.container)}">')
    for name, value in (("Prefix", asked.prefix), ("Marker", asked.marker), ("Delimiter", asked.delimiter)):
        if value:
            parts.append(_element(name, value))
    parts.append(_element("MaxResults", str(asked.results_max)))
    parts.append("<Blobs>")
    for one in found:
        if isinstance(one, str):
            parts.append(f"<BlobPrefix>{_element('Name', one)}</BlobPrefix>")
        else:
            parts.extend(_blob(one, asked.with_metadata))
    parts.append(f"</Blobs>{_element('NextMarker', next_marker)}</EnumerationResults>")
    return "".join(parts).encode()


def _blob(blob: Blob, with_metadata: bool) -> Iterable[str]:
    yield f"<Blob>{_element('Name', blob.path)}<Properties>"
    yield _element("Last-Modified", formatdate(blob.modified_at, usegmt=True))
    yield _element("Etag", blob.etag)
    yield _element("Content-Length", str(blob.size_bytes))
    yield _element("Content-Type", blob.content_type)
    yield _element("Content-MD5", b64encode(blob.md5).decode())
    yield "<BlobType>BlockBlob</BlobType></Properties>"
    if with_metadata:
        members = "".join(_element(name, value) for name, value in blob.metadata.items())
        yield f"<Metadata>{members}</Metadata>"
    yield "</Blob>"


def _element(name: str, text: str) -> str:
    return f"<{name}>{escape(_UNWRITABLE.sub('?', text))}</{name}>"


def _quoted(text: str) -> str:
    return escape(_UNWRITABLE.sub("?", text), {'"': "&quot;"})


def parse_block_list(body: bytes) -> list[Listed]:
    if len(body) > BLOCK_LIST_BYTES_MAX:
        raise _bad(f"it has {len(body)} bytes, and at most {BLOCK_LIST_BYTES_MAX} are read")
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _bad("it is not UTF-8") from error
    if "<!" in text:
        raise _bad("it has a <!, and none is read")
    reader = _BlockListReader()
    parser = XMLParser(target=reader)
    try:
        # A text, not bytes: so the encoding that the document claims for itself is not believed.
        parser.feed(text)
        parser.close()
    except ParseError as error:
        raise _bad(f"it is not well-formed XML: {error}") from error
    return reader.listed


class _BlockListReader:
    """Called by the parser for each start, text and end; refuses what does not belong at once."""

    def __init__(self) -> None:
        self.listed: list[Listed] = []
        self._depth = 0
        self._text: list[str] = []

    def start(self, tag: str, _attributes: dict[str, str]) -> None:
        self._depth += 1
        accepted = ("BlockList",) if self._depth == 1 else ("Latest", "Committed", "Uncommitted")
        if self._depth > 2 or tag not in accepted:
            raise _bad(f"it has an element {tag[:40]!a} where none belongs; {_SHAPE}")
        self._text = []

    def data(self, text: str) -> None:
        self._text.append(text)

    def end(self, tag: str) -> None:
        self._depth -= 1
        text, self._text = "".join(self._text).strip(), []
        if self._depth == 0:
            if text:
                raise _bad(f"it has text outside of its elements; {_SHAPE}")
            return
        if len(self.listed) >= BLOCKS_MAX:
            raise Refusal(Fault.TOO_MANY_BLOCKS, f"the list has more than {BLOCKS_MAX} blocks")
        if not text:
            raise Refusal(Fault.INVALID_BLOCK_LIST, f"the list has a block without an id; {_SHAPE}")
        self.listed.append(Listed(where=tag, block_id=text))  # type: ignore[arg-type]

    def close(self) -> None:
        """The document is whole."""


def _bad(reason: str) -> Refusal:
    return Refusal(Fault.INVALID_XML, f"the list of blocks cannot be read: {reason}")
