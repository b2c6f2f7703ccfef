"""MLflow's python_env.yaml: the same as a conda file, and what is refused of it."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from gateway.environments.python_env import conda_of_python_env
from gateway.environments.recipe import EnvironmentRefused, Recipe, recipe_of
from gateway.resources import ScriptEnvironment

SAVED = """python: 3.11.7
build_dependencies:
- pip==23.2.1
- setuptools==65.5.0
- wheel
dependencies:
- -r requirements.txt
"""


def of(text: str, name: str = "python_env.yaml", **files: str) -> dict[str, Any]:
    return conda_of_python_env(name, text, {path.replace("__", "."): one for path, one in files.items()}.get)


def recipe(text: str, **files: str) -> Recipe:
    document = {"conda_file": of(text, **files)}
    environment = ScriptEnvironment(document=document, needs_mlflow=True)
    return recipe_of(environment, lambda _: b"", (3, 11))


def test_what_mlflow_writes_is_the_python_and_the_packages_of_its_file() -> None:
    found = recipe(SAVED, requirements__txt="mlflow==3.17.2\n# a comment\nscikit-learn \\\n  ==1.9.1")
    assert found == Recipe(python="3.11", requirements=("mlflow==3.17.2", "scikit-learn ==1.9.1"))


def test_packages_may_stand_in_the_file_itself() -> None:
    found = of(
        "build_dependencies: [numpy==1, pip-tools, wheel]\ndependencies: [pandas, --requirement=r.txt]", r__txt="a"
    )
    assert found == {"dependencies": [{"pip": ["numpy==1", "pip-tools", "pandas", "a"]}]}
    assert of("python: null\ndependencies:") == {"dependencies": [{"pip": []}]}


def test_the_files_that_it_names_lie_beside_it() -> None:
    found = conda_of_python_env("envs/python_env.yaml", SAVED, {"envs/requirements.txt": "x"}.get)
    assert found["dependencies"][1] == {"pip": ["x"]}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[1]", "it is no mapping"),
        ("a: [", "python_env.yaml cannot be used: 2: not YAML"),
        ("pip: []", "found the key 'pip'; accepted: python, build_dependencies, dependencies"),
        ("python: newest", "found python: newest; accepted: a version such as 3.11.7"),
        ("python: [3]", "found python: a list or mapping"),
        ("dependencies: x", "no list of texts"),
        ("dependencies: [[x]]", "no list of texts"),
        ("dependencies: [-r other.txt]", "it names 'other.txt', which is not in the model"),
        ("dependencies: [-r ../../etc/passwd]", "it names '../../etc/passwd', which is not in the model"),
        ("dependencies: [-r /etc/passwd]", "it names '/etc/passwd', which is not in the model"),
    ],
)
def test_what_cannot_be_used_is_refused_by_name(text: str, said: str) -> None:
    with pytest.raises(EnvironmentRefused) as caught:
        of(text)
    assert caught.value.code == "BadArgument"
    assert said in str(caught.value)


def test_options_of_pip_are_bounded_as_everywhere() -> None:
    with pytest.raises(EnvironmentRefused, match=r"found '-c constraints\.txt'"):
        recipe(SAVED, requirements__txt="-c constraints.txt")


@pytest.mark.parametrize(
    ("lines", "is_added"),
    [
        (["scikit-learn"], True),
        (["mlflow==3.1"], False),
        (["MLflow_skinny"], False),
        (["azureml-mlflow>=1"], False),
        (["mlflow-plugin"], True),
        (["--pre", "numpy"], True),
    ],
)
def test_mlflow_is_added_where_nothing_brings_it(lines: list[str], is_added: bool) -> None:
    document = {"conda_file": {"dependencies": [{"pip": lines}]}}
    plain = recipe_of(ScriptEnvironment(document=document), lambda _: b"", (3, 11))
    found = recipe_of(ScriptEnvironment(document=document, needs_mlflow=True), lambda _: b"", (3, 11))
    assert plain.requirements == tuple(lines)
    assert found.requirements == (*lines, *(["mlflow-skinny"] if is_added else []))
    assert [note.split(":")[0] for note in found.notes] == (["mlflow-skinny"] if is_added else [])


def test_an_environment_of_a_python_alone_gets_it_and_the_gateways_own_stays_as_it_is() -> None:
    bare = ScriptEnvironment(document={"conda_file": {"dependencies": ["python=3.11"]}}, needs_mlflow=True)
    assert recipe_of(bare, lambda _: b"", (3, 11)).requirements == ("mlflow-skinny",)
    for own in (ScriptEnvironment(reference="local", needs_mlflow=True), ScriptEnvironment(needs_mlflow=True)):
        assert recipe_of(own, lambda _: b"", (3, 11)) == Recipe()


@pytest.mark.parametrize("pip", [[], ["pip", {"pip": ["numpy"]}], ["pip"], [{"pip": ["azureml-defaults"]}]])
def test_a_conda_tool_is_told_of_it_too(pip: list[Any]) -> None:
    document = {"conda_file": {"dependencies": ["gdal=3.8", *pip]}}
    found = recipe_of(ScriptEnvironment(document=document, needs_mlflow=True), lambda _: b"", (3, 11))
    tree = yaml.safe_load(found.conda)
    assert tree["dependencies"][-1]["pip"][-1] == "mlflow-skinny"
    assert tree["dependencies"][:-1].count("pip") == 1
    assert found.requirements[-1] == "mlflow-skinny"
