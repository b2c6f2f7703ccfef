"""The XML of the Blob protocol: lists of blocks are read strictly, and whatever is written can be read."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from gateway.controlplane.blobs.refusals import Fault, Refusal
from gateway.controlplane.blobs.xml_text import Listed, Listing, error_xml, list_xml, parse_block_list
from gateway.controlplane.store.records import Blob

BLOB = Blob(
    container="azureml",
    path='a & <b>/"c".onnx',
    sha256="0" * 64,
    size_bytes=7,
    md5=b"0123456789abcdef",
    metadata={"name": "<&\x0b>", "_1": "ü"},
    etag="0x1",
    modified_at=0.0,
)


def test_a_list_of_blocks_keeps_its_order() -> None:
    body = b"""\xef\xbb\xbf<?xml version='1.0' encoding='utf-8'?>
    <BlockList><Latest>QQ==</Latest><Uncommitted> Qg==
    </Uncommitted><Committed>QQ==</Committed></BlockList>"""
    assert parse_block_list(body) == [
        Listed(where="Latest", block_id="QQ=="),
        Listed(where="Uncommitted", block_id="Qg=="),
        Listed(where="Committed", block_id="QQ=="),
    ]


def test_an_empty_list_is_one() -> None:
    assert parse_block_list(b"<BlockList/>") == []


BOMB = b"""<?xml version="1.0"?><!DOCTYPE l [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;">]>
<BlockList><Latest>&b;</Latest></BlockList>"""
FILE = b"""<!DOCTYPE l [<!ENTITY a SYSTEM "file:///etc/passwd">]><BlockList><Latest>&a;</Latest></BlockList>"""
PLAIN = b"<BlockList><Latest>QQ==</Latest></BlockList>"


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"nothing", b"<BlockList>", b"{}", BOMB, FILE, BOMB.decode().encode("utf-16"), b"\xff\xfe" + PLAIN),
        *(PLAIN + PLAIN, b"<Other/>", b"<BlockList><Other>x</Other></BlockList>", b"<BlockList>x</BlockList>"),
        *(b"<BlockList><Latest><Latest>x</Latest></Latest></BlockList>", b"<BlockList>&lt;</BlockList>"),
        *(b"<BlockList><Latest>&unknown;</Latest></BlockList>", b"<BlockList><!-- x --></BlockList>"),
        *(b"<BlockList><Latest><![CDATA[x]]></Latest></BlockList>", b"<a>" * 100_000),
        *(b"<?xml version='1.0' encoding='utf-16'?>\x00" + PLAIN, b" " * (8 * 1024 * 1024 + 1)),
        b"<BlockList>" + b"<Latest>" * 5000,
    ],
)
def test_what_is_no_list_of_blocks_is_refused(body: bytes) -> None:
    with pytest.raises(Refusal) as refused:
        parse_block_list(body)
    assert refused.value.fault is Fault.INVALID_XML


def test_an_encoding_that_is_claimed_is_not_believed() -> None:
    body = b"<?xml version='1.0' encoding='ISO-8859-1'?>" + PLAIN
    assert parse_block_list(body) == [Listed(where="Latest", block_id="QQ==")]


def test_a_block_needs_an_id() -> None:
    with pytest.raises(Refusal) as refused:
        parse_block_list(b"<BlockList><Latest/></BlockList>")
    assert refused.value.fault is Fault.INVALID_BLOCK_LIST


def test_a_list_is_as_long_as_azure_has_it() -> None:
    most = b"<BlockList>" + b"<Latest>QQ==</Latest>" * 50_000
    assert len(parse_block_list(most + b"</BlockList>")) == 50_000
    with pytest.raises(Refusal) as refused:
        parse_block_list(most + b"<Latest>QQ==</Latest></BlockList>")
    assert refused.value.fault is Fault.TOO_MANY_BLOCKS


def test_an_error_is_readable_whatever_its_text() -> None:
    document = ElementTree.fromstring(error_xml("InvalidUri", "bad \x00 <name> & \ud800", "id", "now"))
    assert document.findtext("Code") == "InvalidUri"
    assert document.findtext("Message") == "bad ? <name> & ?\nRequestId:id\nTime:now"


def test_a_listing_says_everything_of_its_blobs() -> None:
    asked = Listing(
        container="azureml", service='https://h"/blob/', prefix="a &", delimiter="/", marker="m",
        results_max=5, with_metadata=True,
    )  # fmt: skip
    document = ElementTree.fromstring(list_xml(asked, [BLOB, "a & c/"], "more"))
    assert document.attrib == {"ServiceEndpoint": 'https://h"/blob/', "ContainerName": "azureml"}
    assert [document.findtext(name) for name in ("Prefix", "Marker", "Delimiter", "MaxResults", "NextMarker")] == [
        "a &", "m", "/", "5", "more"
    ]  # fmt: skip
    blob = document.find("Blobs/Blob")
    assert blob is not None
    assert blob.findtext("Name") == BLOB.path
    assert {one.tag: one.text for one in blob.findall("Properties/*")} == {
        "Last-Modified": "Thu, 01 Jan 1970 00:00:00 GMT",
        "Etag": "0x1",
        "Content-Length": "7",
        "Content-Type": "application/octet-stream",
        "Content-MD5": "MDEyMzQ1Njc4OWFiY2RlZg==",
        "BlobType": "BlockBlob",
    }
    assert {one.tag: one.text for one in blob.findall("Metadata/*")} == {"name": "<&?>", "_1": "ü"}
    assert document.findtext("Blobs/BlobPrefix/Name") == "a & c/"


def test_metadata_is_listed_where_it_was_asked_for() -> None:
    asked = Listing(container="azureml", service="https://h/blob/", results_max=5)
    document = ElementTree.fromstring(list_xml(asked, [BLOB], ""))
    assert document.find("Blobs/Blob/Metadata") is None
    assert document.find("Prefix") is None
    assert document.findtext("NextMarker") == ""
