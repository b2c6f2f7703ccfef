"""The reference pages say what the code does, because they are made from it."""

from __future__ import annotations

import pytest

from tests.support.reference import ROOT, pages


@pytest.mark.parametrize("name", sorted(pages()))
def test_the_committed_page_is_what_the_types_say(name: str) -> None:
    committed = (ROOT / name).read_text(encoding="utf-8")
    assert committed == pages()[name], f"run: python -m tests.support.reference (it writes {name})"
