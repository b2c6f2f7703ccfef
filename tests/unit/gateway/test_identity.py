"""Request ids."""

from __future__ import annotations

from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from gateway.identity import RequestIds, clean_client_id


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
