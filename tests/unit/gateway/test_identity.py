"""Request ids."""

from __future__ import annotations

from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from gateway.identity import RequestIds, clean_client_id, echoed, is_guid


def test_every_request_gets_a_guid_of_its_own_in_every_process() -> None:
    here, there = RequestIds(), RequestIds()
    ids = [source.next() for _ in range(1000) for source in (here, there)]
    assert len(set(ids)) == len(ids)
    assert all(str(UUID(text)) == text and UUID(text).version == 4 for text in ids)


@given(st.binary(max_size=200))
def test_a_client_id_keeps_only_what_is_safe_in_a_header_and_a_log(raw: bytes) -> None:
    cleaned = clean_client_id(raw)
    assert len(cleaned) <= 40
    assert all(chr(byte).isalnum() or byte in b"_-" for byte in cleaned)
    assert cleaned in bytes(byte for byte in raw if chr(byte).isascii() and (chr(byte).isalnum() or byte in b"_-"))


def test_a_callers_request_id_counts_where_it_is_a_guid() -> None:
    assert is_guid(b"0f8fad5b-d9cb-469f-a165-70867728950E")
    assert not is_guid(b"0f8fad5b-d9cb-469f-a165-70867728950")
    assert not is_guid(b"0f8fad5b-d9cb-469f-a165-70867728950E\n")


def test_trace_headers_go_back_whole_or_cleaned() -> None:
    parent = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    assert echoed(b"traceparent", parent) == parent
    assert echoed(b"traceparent", parent + b"\r\nx: y") == b""
    assert echoed(b"traceid", b"a b\r\n1") == b"ab1"
