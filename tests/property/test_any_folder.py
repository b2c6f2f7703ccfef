"""Whatever stands in a folder: it is served, or every problem is a sentence; nothing else ever happens."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.controlplane.decode import struct_type
from gateway.controlplane.folder import FolderError, read_folder
from gateway.controlplane.yaml_types import OnlineDeploymentYaml, OnlineEndpointYaml
from gateway.suggest import squash
from gateway.yaml_text import Entries, Items, Node, Scalar, read_documents

KEYS = sorted(
    {field.encode_name for cls in (OnlineEndpointYaml, OnlineDeploymentYaml) for field in struct_type(cls).fields}
    | {"blue", "path", "batching", "runtime", "device_ids", "keys", "primary", "file", "oidc", "type", "<<", "zzz"}
)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 10**20),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["m.onnx", "digits", "blue", "key", "AADToken", "managed", "https://i", "azureml:m:1", "."]),
)
trees = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=5), inner, max_size=6)
    ),
    max_leaves=12,
)
names = st.from_regex(r"[A-Za-z][-A-Za-z0-9]{1,14}[A-Za-z0-9]", fullmatch=True)
texts = st.dictionaries(st.text(max_size=6), st.text(max_size=6), max_size=4)


def read(documents: list[Any] | bytes) -> Any:
    """What a folder with these documents and a model gives: all that is served, or the problems."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "m.onnx").touch()
        data = documents if isinstance(documents, bytes) else yaml.safe_dump_all(documents).encode()
        (folder / "a.yml").write_bytes(data)
        try:
            return read_folder(folder)
        except FolderError as error:
            assert error.problems
            assert all(one and "\n" not in one for one in error.problems)
            return error


@settings(max_examples=60, deadline=None)
@given(st.lists(st.dictionaries(st.sampled_from(KEYS), trees, max_size=8), max_size=3))
def test_any_tree_is_served_or_refused_in_sentences(documents: list[Any]) -> None:
    read(documents)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200) | st.text(alphabet="ab:-[]{}&*!<>|'\"\n #,?%@`~\t", max_size=80).map(str.encode))
@example(b"[" * 5000)
@example(b"a: &a [*a]")
@example(b"\xef\xbb\xbf")
def test_any_bytes_are_documents_or_mistakes(data: bytes) -> None:
    documents, mistakes = read_documents(data)
    assert all(1 <= mistake.line <= data.count(b"\n") + data.count(b"\r") + 2 for mistake in mistakes)
    assert mistakes or all(isinstance(one, (Entries, Items, Scalar)) for one in documents)


def plain(node: Node) -> Any:
    match node:
        case Scalar():
            return node.text
        case Items():
            return [plain(one) for one in node.items]
        case Entries():
            return {name: plain(one) for name, one in node.entries.items()}


texts_only = st.recursive(
    st.text(max_size=10).filter(lambda text: text != "<<"),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=15,
)


@settings(max_examples=150, deadline=None)
@given(texts_only, st.sampled_from([None, True, False]))
def test_text_comes_back_as_it_was_written(tree: Any, flow: bool | None) -> None:
    data = yaml.safe_dump(tree, default_flow_style=flow).encode()
    documents, mistakes = read_documents(data)
    assert (mistakes, [plain(one) for one in documents]) == ([], [tree])


@settings(max_examples=30, deadline=None)
@given(names, st.lists(names, min_size=1, max_size=6, unique_by=str.lower), texts, st.randoms(use_true_random=False))
def test_what_is_right_is_served_whole(
    endpoint: str, deployments: list[str], tags: dict[str, str], chance: Any
) -> None:
    shares = [0] * len(deployments)
    for _ in range(100):
        shares[chance.randrange(len(shares))] += 1
    traffic = {chance.choice([name, name.upper()]): share for name, share in zip(deployments, shares, strict=True)}
    documents: list[Any] = [{"name": endpoint, "traffic": traffic, "tags": tags}]
    documents += [
        {"name": name, "endpoint_name": endpoint.lower(), "model": "m.onnx", "instance_type": "cpu"}
        for name in deployments
    ]
    chance.shuffle(documents)
    found = read(documents)
    assert found.endpoints[endpoint.lower()].tags == tags
    assert sum(found.endpoints[endpoint.lower()].traffic.values()) == 100
    assert {name for _, name in found.deployments} == set(found.endpoints[endpoint.lower()].traffic)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 100), min_size=1, max_size=5))
def test_traffic_is_accepted_exactly_when_it_sums_to_0_or_100(shares: list[int]) -> None:
    deployments = [f"dep{index}" for index in range(len(shares))]
    documents: list[Any] = [{"name": "digits", "traffic": dict(zip(deployments, shares, strict=True))}]
    documents += [
        {"name": name, "endpoint_name": "digits", "model": "m.onnx", "instance_type": "cpu"} for name in deployments
    ]
    assert isinstance(read(documents), FolderError) == (sum(shares) not in (0, 100))


@given(st.sampled_from(["key", "aml_token"]), st.data())
@settings(max_examples=60, deadline=None)
def test_a_choice_is_taken_in_any_case_and_style(mode: str, data: st.DataObject) -> None:
    letters = [data.draw(st.sampled_from([one.lower(), one.upper()])) for one in mode]
    written = "".join(data.draw(st.sampled_from(["_", "-", ""])) if one == "_" else one for one in letters)
    assert squash(written) == squash(mode)
    assert read([{"name": "digits", "auth_mode": written}]).endpoints["digits"].auth_mode.value == mode
