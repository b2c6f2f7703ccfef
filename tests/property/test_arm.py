"""What a document says survives the store and the way to a client and back; any body is read or refused."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import inspect

from gateway.controlplane.arm import durations, ids
from gateway.controlplane.arm.bodies import merge
from gateway.controlplane.arm.members import ECHOES
from gateway.controlplane.decode import struct_type
from gateway.controlplane.documents import document_type, from_builtins, normal_form, to_builtins
from gateway.controlplane.store.records import Kind
from gateway.controlplane.yaml_types import BatchDeploymentYaml, BatchSettingsYaml, OnlineDeploymentYaml
from gateway.errors import Code, Problem
from tests.support.arm import body_of, read_back

KINDS = [kind for kind in Kind if kind is not Kind.ROLLOUT]
DEPLOYMENTS = (Kind.ONLINE_DEPLOYMENT, Kind.BATCH_DEPLOYMENT)
ASSETS = (Kind.MODEL, Kind.ENVIRONMENT, Kind.CODE, Kind.DATA)
NAME, PARENT = "Blue-1", "Digits"

words = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=8)
keys = words.filter(lambda word: word not in ECHOES)
names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,12}", fullmatch=True)
references = st.builds("azureml:{}:{}".format, names, names) | st.builds("azureml:{}@latest".format, names)
# What normal form takes out, or what is text in YAML and otherwise at the edge.
LEFT_OUT = {"$schema", "id", "kind", "location", "scoring_uri", "openapi_uri", "provisioning_state", "datastore"}
BATCH_OLDER = set(struct_type(BatchSettingsYaml).cls.__struct_fields__) - {"environment_variables", "instance_count"}
TOLD = {
    "name": st.just(NAME),
    "endpoint_name": st.just(PARENT),
    "environment": st.none() | references,
    "code": st.just("") | references,
    "data": st.none() | references,
    "compute": st.just("") | st.builds("azureml:{}".format, names),
    "conda_file": st.none() | words,
    "flavors": st.dictionaries(words, st.dictionaries(words, words, max_size=2), max_size=2),
    "component": st.none(),
    "job_definition": st.none(),
    "default_compute": st.none(),
    "default_datastore": st.none(),
    "continue_on_step_failure": st.none(),
    "force_rerun": st.none(),
    "user_assigned_identities": st.just(()),
    "resource_id": words,
}


MODELS = {OnlineDeploymentYaml: st.none() | references, BatchDeploymentYaml: st.none() | references}


def value_of(kind: inspect.Type, name: str) -> st.SearchStrategy[Any]:
    """Anything that a field takes, as builtins."""
    while isinstance(kind, inspect.Metadata):
        kind = kind.type
    match kind:
        case inspect.UnionType():
            return st.one_of([value_of(one, name) for one in kind.types])
        case inspect.StructType():
            return struct_of(kind)
        case inspect.DictType():
            return st.dictionaries(keys.map(str.lower), value_of(kind.value_type, name), max_size=2)
        case inspect.VarTupleType():
            return st.lists(value_of(kind.item_type, name), max_size=min(2, kind.max_length or 2))
        case inspect.LiteralType():
            return st.sampled_from([one for one in kind.values if one != "pipeline"])
        case inspect.IntType():
            return st.integers(-(10**9) if kind.ge is None else kind.ge, 10**9 if kind.le is None else kind.le)
        case inspect.FloatType():
            return st.floats(kind.ge, kind.le, allow_nan=False, allow_infinity=False)
        case inspect.BoolType():
            return st.booleans()
        case inspect.NoneType():
            return st.none()
        case _:
            return words


def struct_of(kind: inspect.StructType) -> st.SearchStrategy[dict[str, Any]]:
    required: dict[str, st.SearchStrategy[Any]] = {}
    optional: dict[str, st.SearchStrategy[Any]] = {}
    for one in kind.fields:
        if one.encode_name not in LEFT_OUT:
            known = MODELS.get(kind.cls) if one.encode_name == "model" else TOLD.get(one.encode_name)
            (required if one.required else optional)[one.encode_name] = (
                known if known is not None else value_of(one.type, one.encode_name)
            )
    return st.fixed_dictionaries(required, optional=optional)


def documents(kind: Kind) -> st.SearchStrategy[msgspec.Struct]:
    """Documents of a kind in normal form."""
    cls = document_type(kind)
    named = {"name": PARENT, "version": NAME} if kind in ASSETS else {"name": NAME}

    def normal(data: dict[str, Any]) -> msgspec.Struct:
        # One setting in two places has no normal form; see the unit tests.
        data = {key: one for key, one in (data | named).items() if key not in BATCH_OLDER}
        data.get("settings", {}).pop("instance_count", None)
        document, blames = normal_form(msgspec.convert(data, cls))
        assert blames == []
        return document

    return struct_of(struct_type(cls)).map(normal)


@pytest.mark.parametrize("kind", KINDS)
def test_a_document_survives_the_store_and_the_edge(kind: Kind) -> None:
    parent = "" if kind in (Kind.ONLINE_ENDPOINT, Kind.BATCH_ENDPOINT) else PARENT

    @settings(max_examples=40, deadline=None)
    @given(documents(kind))
    def check(document: msgspec.Struct) -> None:
        assert normal_form(document) == (document, [])
        stored = json.loads(json.dumps(to_builtins(document)))
        assert from_builtins(kind, stored) == document
        sent = json.loads(json.dumps(body_of(kind, document, NAME, parent)))
        assert read_back(kind, sent, NAME, parent) == document

    check()


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.parametrize("kind", KINDS)
def test_any_body_is_read_or_refused_in_sentences(kind: Kind) -> None:
    parent = "" if kind in (Kind.ONLINE_ENDPOINT, Kind.BATCH_ENDPOINT) else PARENT
    whole = body_of(kind, from_builtins(kind, _least(kind)), NAME, parent)
    paths = list(_paths(whole))

    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.tuples(st.sampled_from(paths), anything), max_size=4))
    def check(changes: list[tuple[tuple[str, ...], Any]]) -> None:
        body = json.loads(json.dumps(whole))
        for path, value in changes:
            _set(body, path, value)
        try:
            read_back(kind, body, NAME, parent)
        except Problem as problem:
            assert problem.code is Code.INVALID_INPUT
            assert problem.details
            assert all("accepted" in one or "unknown key" in one or "named twice" in one for one in problem.details)

    check()


def _least(kind: Kind) -> dict[str, Any]:
    if kind in DEPLOYMENTS:
        return {"name": NAME, "endpoint_name": PARENT}
    return {"name": NAME} | ({"path": "p"} if kind in (Kind.MODEL, Kind.CODE, Kind.DATA) else {})


def _paths(tree: Any, above: tuple[str, ...] = ()) -> Any:
    for name, value in tree.items():
        yield (*above, name)
        if isinstance(value, dict):
            yield from _paths(value, (*above, name))


def _set(tree: Any, path: tuple[str, ...], value: Any) -> None:
    for name in path[:-1]:
        tree = tree.get(name) if isinstance(tree, dict) else None
    if isinstance(tree, dict):
        tree[path[-1]] = value


@given(st.integers(0, 10**12))
def test_milliseconds_survive_as_a_duration(milliseconds: int) -> None:
    assert durations.to_ms(durations.from_ms(milliseconds)) == milliseconds


@given(names, names, names, names, names)
def test_an_id_survives_in_any_case_of_its_types(
    sub: str, group: str, workspace: str, name: str, version: str
) -> None:
    root = ids.Workspace(sub, group, workspace)
    text = root.child("models", name, "versions", version)
    assert ids.parse(text) == ids.ArmId(root, (("models", name), ("versions", version)))
    assert ids.asset_reference(text, Kind.MODEL) == f"azureml:{name}:{version}"
    assert ids.asset_id(root, Kind.MODEL, f"azureml:{name}:{version}") == text


@given(st.text(max_size=60))
def test_any_text_is_a_reference_or_refused(text: str) -> None:
    for read in (ids.parse, ids.compute_reference, ids.stored_at, lambda one: ids.asset_reference(one, Kind.MODEL)):
        try:
            read(text)
        except ids.IdError as error:
            assert "accepted" in str(error) or "registries" in str(error)


@given(anything, anything, st.dictionaries(st.text(max_size=3), anything, max_size=3))
def test_a_merge_patch_is_idempotent(target: Any, patch: Any, more: dict[str, Any]) -> None:
    once = merge(merge(target, patch), more)
    assert merge(once, more) == once
    assert merge(target, {}) == (target if isinstance(target, dict) else {})
