"""Any folder: applied twice it changes nothing, and what is exported of it is the same folder."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.controlplane.apply_bundle import Bundle, bundle_of, wanted_of
from gateway.yaml_text import Entries, Items, Node, Scalar, read_documents, write_yaml
from tests.support.applied import Stored, contents_of, read, write_export

# What a terminal or an editor can show; other characters come back as well, but not from every writer of YAML.
texts = st.text(st.characters(exclude_categories=("Cs", "Cc"), include_characters="\n\t"), max_size=20)
names = st.sampled_from(["blue", "Green", "red-1", "x9z"])
maps = st.dictionaries(texts, texts, max_size=3)


def key_of(document: dict[str, Any]) -> str:
    return str(document["name"]).lower()


endpoints = st.fixed_dictionaries(
    {"name": st.sampled_from(["digits", "Letters"])},
    optional={
        "description": texts,
        "tags": maps,
        "auth_mode": st.sampled_from(["key", "AMLToken"]),
        "traffic": st.dictionaries(names, st.integers(0, 100), max_size=2),
        "gateway": st.fixed_dictionaries({}, optional={"slo_ms": st.floats(0.001, 300_000)}),
        "$schema": st.sampled_from(["https://x/kubernetesOnlineEndpoint.schema.json"]),
    },
)
inline = st.sampled_from(["one.onnx", "two.onnx", "folder", "azureml:m:1"])
deployments = st.fixed_dictionaries(
    {"name": names, "endpoint_name": st.just("digits"), "model": inline},
    optional={
        "instance_count": st.integers(1, 10_000),
        "properties": maps,
        "environment_variables": maps,
        "type": st.sampled_from(["managed", "kubernetes"]),
        "request_settings": st.fixed_dictionaries({"request_timeout_ms": st.integers(1, 300_000)}),
        "environment": st.sampled_from(["azureml:e:1"])
        | st.fixed_dictionaries({"conda_file": texts.map("a: b\n".__add__)}),
        "scale_settings": st.just({"type": "target_utilization", "max_instances": 3}),
    },
)
assets = st.fixed_dictionaries(
    {"name": st.sampled_from(["m", "M2"]), "path": st.sampled_from(["one.onnx", "folder", "https://far/x"])},
    optional={"version": st.sampled_from(["1", "2", "1.10"]), "tags": maps, "type": st.just("custom_model")},
)
folders = st.tuples(
    st.lists(endpoints, max_size=2, unique_by=key_of),
    st.lists(deployments, max_size=4, unique_by=key_of),
    st.lists(assets, max_size=2, unique_by=key_of),
).filter(lambda found: any(found))


def make(folder: Path, documents: Any) -> Path:
    folder.mkdir()
    (folder / "folder").mkdir()
    for name in ("one.onnx", "two.onnx", "folder/deep.onnx"):
        (folder / name).write_bytes(name.encode())
    (folder / "all.yml").write_text("---\n".join(write_yaml(one) for part in documents for one in part), "utf-8")
    return folder


@settings(max_examples=40, deadline=None)
@given(folders, folders)
def test_a_folder_applied_twice_or_exported_and_applied_changes_nothing(first: Any, second: Any) -> None:
    with tempfile.TemporaryDirectory() as name:
        stored, content = Stored(), dict[str, bytes]()
        for number, documents in enumerate((first, second)):
            folder = make(Path(name) / str(number), documents)
            resolved = read(folder, folder)
            content |= contents_of(resolved)
            found = stored.changes(resolved.wanted)
            if found.problems:
                assert all("never changes" in one or "is no longer in the folder" in one for one in found.problems)
                return
            stored.carry_out(found)
            assert stored.changes(resolved.wanted).is_empty
            exported = write_export(stored, Path(name) / f"exported-{number}", content)
            assert stored.changes(read(exported, exported).wanted, prune=True).is_empty


@settings(max_examples=30, deadline=None)
@given(folders)
def test_what_is_sent_is_what_is_wanted(documents: Any) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = make(Path(name) / "folder", documents)
        wanted = read(folder, folder).wanted
        assert wanted_of(msgspec.json.decode(msgspec.json.encode(bundle_of(wanted)), type=Bundle)) == wanted


values = st.recursive(
    st.text(max_size=15) | st.integers() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=15,
)


def as_read(node: Node, like: Any) -> Any:
    """The node as the value that it is compared with."""
    match node:
        case Scalar():
            if isinstance(like, bool):
                return {"true": True, "false": False}[node.text]
            return type(like)(node.text) if isinstance(like, int | float) else node.text
        case Items():
            return [as_read(one, value) for one, value in zip(node.items, like, strict=True)]
        case Entries():
            return {key: as_read(one, like[key]) for key, one in node.entries.items()}


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.text(max_size=8), values, max_size=5))
def test_what_is_written_reads_as_it_was(tree: dict[str, Any]) -> None:
    documents, mistakes = read_documents(write_yaml(tree).encode())
    assert mistakes == []
    assert [as_read(one, tree) for one in documents] == ([tree] if documents else [])
