"""Which model and which version of a repository is served."""

from __future__ import annotations

import pytest

from gateway.controlplane.triton.model_config import All, Latest, Specific, VersionPolicy
from gateway.controlplane.triton.repository import (
    ModelFolder,
    RepositoryError,
    choose_model,
    choose_version,
    models_in,
)


def names(*paths: str) -> list[tuple[str, str]]:
    return [(one.name, one.folder) for one in models_in(paths, "here")]


def test_models_are_the_folders_with_a_configuration_or_versions() -> None:
    assert names("b/config.pbtxt", "a/1/model.onnx", "notes/readme.md", "README.md") == [("a", "a/"), ("b", "b/")]


def test_one_folder_may_hold_them_all_and_the_folder_may_be_the_model() -> None:
    assert names("models/a/1/model.onnx", "models/b/config.pbtxt") == [("a", "models/a/"), ("b", "models/b/")]
    assert names("1/model.onnx", "config.pbtxt") == [("here", "")]
    assert names("x/y/a/1/model.onnx") == []


def test_hidden_files_and_folders_that_are_no_versions_do_not_count() -> None:
    assert names(".git/1/model.onnx", "a/01/model.onnx", "a/v1/model.onnx") == []
    (found,) = models_in(["a/1/model.onnx", "a/01/model.onnx", "a/x/y", "a/12/data/w.bin", "a/config.pbtxt"], "here")
    assert found.versions == {1: ["model.onnx"], 12: ["data/w.bin"]}
    assert found.config == "a/config.pbtxt"
    assert ModelFolder(name="a", folder="a/", paths=("1/m",)).config == ""


def chosen(wanted: str, *paths: str) -> str:
    return choose_model(models_in(paths, "here"), wanted).name


def test_the_only_model_needs_no_name_and_of_several_one_is_named() -> None:
    assert chosen("", "a/1/m") == "a"
    assert chosen("b", "a/1/m", "b/1/m") == "b"
    with pytest.raises(RepositoryError, match=r"it holds 2 models \(a, b\) .* gateway.runtime.model") as caught:
        chosen("", "a/1/m", "b/1/m")
    assert not caught.value.is_choice
    with pytest.raises(RepositoryError, match=r"has no model 'dense'; did you mean densenet\?") as caught:
        chosen("dense", "densenet/1/m", "b/1/m")
    assert caught.value.is_choice
    with pytest.raises(RepositoryError, match="it holds no model; accepted: a Triton repository"):
        chosen("", "readme.md")


VERSIONS = ModelFolder(name="a", folder="m/a/", paths=tuple(f"{one}/model.onnx" for one in (1, 2, 10)))


@pytest.mark.parametrize(
    ("policy", "number", "notes"),
    [
        (None, 10, ()),
        (VersionPolicy(), 10, ()),
        (VersionPolicy(latest=Latest()), 10, ()),
        (
            VersionPolicy(latest=Latest(num_versions=2)),
            10,
            ("version_policy: admits versions 10, 2; a deployment serves one, the newest: 10",),
        ),
        (
            VersionPolicy(all=All()),
            10,
            ("version_policy: admits versions 10, 2, 1; a deployment serves one, the newest: 10",),
        ),
        (VersionPolicy(specific=Specific(versions=(2,))), 2, ()),
        (
            VersionPolicy(specific=Specific(versions=(1, 2, 7))),
            2,
            (
                "version_policy: admits versions 2, 1; a deployment serves one, the newest: 2",
                "version_policy: names versions that are not there: 7",
            ),
        ),
    ],
)
def test_the_newest_version_that_the_policy_admits_is_served(
    policy: VersionPolicy | None, number: int, notes: tuple[str, ...]
) -> None:
    found = choose_version(VERSIONS, policy, "")
    assert (found.number, found.folder, found.entry) == (number, f"m/a/{number}/", f"m/a/{number}/model.onnx")
    assert found.notes == notes


def test_a_version_that_cannot_be_served_is_explained() -> None:
    with pytest.raises(RepositoryError, match="admits none of its versions, 10, 2, 1"):
        choose_version(VERSIONS, VersionPolicy(specific=Specific(versions=(7,))), "")
    plan = ModelFolder(name="a", folder="", paths=("1/model.plan",))
    with pytest.raises(RepositoryError, match=r"version 1 of model 'a' holds no model.onnx, but model.plan; ONNX"):
        choose_version(plan, None, "")
    with pytest.raises(RepositoryError, match="has no version; accepted: folders 1, 2"):
        choose_version(ModelFolder(name="a", folder="", paths=("config.pbtxt",)), None, "")


def test_the_file_may_have_another_name_or_be_in_a_folder_of_its_name() -> None:
    other = ModelFolder(name="a", folder="", paths=("1/net.onnx", "2/model.onnx/model.onnx", "2/model.onnx/w.bin"))
    assert choose_version(other, VersionPolicy(specific=Specific(versions=(1,))), "net.onnx").entry == "1/net.onnx"
    assert choose_version(other, None, "").entry == "2/model.onnx/model.onnx"
