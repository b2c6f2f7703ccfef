"""Any bytes as a path or as a query: read, or refused with a sentence; never anything else."""

from __future__ import annotations

from urllib.parse import quote

from hypothesis import given
from hypothesis import strategies as st

from gateway.controlplane.rest.query import COMPUTE_TYPE, COUNT, IS_DEFAULT, NAME, SKIP, TOP, Query
from gateway.controlplane.rest.router import Router, check_names
from gateway.controlplane.rest.table import ROUTES
from gateway.errors import Problem

ROUTER = Router(ROUTES)
KNOWN = (NAME, TOP, SKIP, COUNT, IS_DEFAULT, COMPUTE_TYPE)
PATHS = st.sampled_from([route.template for route in ROUTES])
REFUSED = {400, 404, 405, 414}


@given(raw=st.binary(max_size=200))
def test_any_path_is_found_or_refused(raw: bytes) -> None:
    try:
        check_names(ROUTER.find("GET", raw))
    except Problem as problem:
        assert problem.code.status in REFUSED


@given(template=PATHS, name=st.text(min_size=1, max_size=40), method=st.sampled_from(["GET", "PUT", "POST", "BREW"]))
def test_any_name_is_kept_as_it_was_sent_or_refused(template: str, name: str, method: str) -> None:
    names = [part[1:-1] for part in template.split("/") if part.startswith("{")]
    path = template.format(**dict.fromkeys(names, quote(name, safe="")))
    try:
        found = ROUTER.find(method, path.encode())
    except Problem as problem:
        assert problem.code.status in REFUSED
        return
    assert set(found.params.values()) <= {name}


@given(raw=st.binary(max_size=200))
def test_any_query_is_read_or_refused(raw: bytes) -> None:
    try:
        Query(raw, KNOWN)
    except Problem as problem:
        assert problem.code.status == 400


@given(text=st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=100))
def test_a_text_is_read_as_it_was_meant(text: str) -> None:
    query = Query(f"NAME={quote(text, safe='')}&other=%20".encode(), KNOWN)
    assert query.text(NAME) == text
