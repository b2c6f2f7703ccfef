"""Recipes: what is installed of what a person wrote, what is said of the rest, and what is never passed on."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.environments.recipe import EnvironmentRefused, Recipe, recipe_of, wheels_only
from gateway.resources import ScriptEnvironment

OWN = (3, 11)


def of(document: dict[str, Any] | None = None, reference: str = "", files: dict[str, bytes] | None = None) -> Recipe:
    contents = dict(files or {})
    listed = tuple((path, path, len(data)) for path, data in contents.items())
    environment = ScriptEnvironment(reference=reference, document=document, files=listed)
    return recipe_of(environment, contents.__getitem__, OWN)


def conda(*dependencies: Any, **more: Any) -> Recipe:
    return of({"conda_file": {"name": "e", "dependencies": list(dependencies), **more}})


def pip(*lines: Any) -> tuple[str, ...]:
    return conda({"pip": list(lines)}).requirements


def refused(document: dict[str, Any] | None = None, **more: Any) -> str:
    with pytest.raises(EnvironmentRefused) as caught:
        of(document, **more)
    assert caught.value.code == "BadArgument"
    return str(caught.value)


# ---- names and images


@pytest.mark.parametrize("reference", ["", "local", "Local", "azureml:local"])
def test_local_is_the_gateways_own_interpreter(reference: str) -> None:
    assert of(reference=reference) == Recipe()


@pytest.mark.parametrize(
    "reference",
    [
        "azureml:AzureML-sklearn-1.0-ubuntu20.04-py38-cpu-inference:5",
        "azureml:azureml-minimal@latest",
        "azureml://registries/azureml/environments/sklearn-1.5/labels/latest",
    ],
)
def test_a_curated_environment_is_the_gateways_own_interpreter_and_that_is_said(reference: str) -> None:
    recipe = of(reference=reference)
    assert (recipe.python, recipe.requirements) == ("", ())
    assert reference in recipe.notes[0]


@pytest.mark.parametrize(
    "reference", ["azureml:mine:1", "mine", "azureml://registries/somebody/environments/x/versions/1"]
)
def test_a_name_that_nobody_registered_is_refused(reference: str) -> None:
    said = refused(reference=reference)
    assert reference in said
    assert "accepted:" in said


def test_an_image_of_azures_own_installs_nothing_and_others_are_refused() -> None:
    image = "mcr.microsoft.com/azureml/minimal-ubuntu20.04-py38-cpu-inference:latest"
    assert image in of({"image": image}).notes[0]
    assert of({"image": ""}) == Recipe()
    for other in ("nginx", "mcr.microsoft.com.evil.org/x", "docker.io/mcr.microsoft.com/x"):
        assert "no container is run" in refused({"image": other})


def test_a_custom_container_is_refused_and_azures_own_routes_are_not() -> None:
    routes = {"scoring_route": {"port": 5001, "path": "/score"}}
    assert "custom container" in refused({"image": "nginx", "inference_config": routes})
    assert "custom container" in refused({"build": {"path": "x"}, "inference_config": routes})
    assert of({"image": "mcr.microsoft.com/azureml/x", "inference_config": routes}).requirements == ()


def test_beside_a_conda_file_an_image_of_ones_own_is_named_as_left_out() -> None:
    recipe = of({"image": "me/base:1", "conda_file": {"dependencies": ["numpy"]}})
    assert recipe.requirements == ("numpy",)
    assert "me/base:1" in recipe.notes[0]
    assert of({"image": "mcr.microsoft.com/x", "conda_file": {"dependencies": ["numpy"]}}).notes == ()


# ---- conda files


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("numpy", "numpy"),
        ("numpy=1.26", "numpy==1.26.*"),
        ("numpy=1.26.*", "numpy==1.26.*"),
        ("numpy=1.26.4=py311h64a7726_0", "numpy==1.26.4.*"),
        ("numpy==1.26.4", "numpy==1.26.4"),
        ("numpy==1.26.4=py311_0", "numpy==1.26.4"),
        ("numpy>=1.20,<2", "numpy>=1.20,<2"),
        ("numpy >= 1.20, < 2", "numpy>=1.20,<2"),
        ("numpy 1.26.4", "numpy==1.26.4"),
        ("numpy 1.26.4 py311_0", "numpy==1.26.4"),
        ("numpy 1.26*", "numpy==1.26.*"),
        ("numpy!=1.19.*", "numpy!=1.19.*"),
        ("numpy=*", "numpy"),
        ("NumPy", "numpy"),
        ("conda-forge::scikit-learn=1.5", "scikit-learn==1.5.*"),
        ("conda-forge/linux-64::scikit-learn", "scikit-learn"),
        ("pytorch=2.1", "torch==2.1.*"),
        ("opencv", "opencv-python-headless"),
    ],
)
def test_conda_packages_that_pypi_has_are_installed_from_there(line: str, wanted: str) -> None:
    assert conda(line).requirements == (wanted,)


@pytest.mark.parametrize(
    ("line", "python"),
    [
        ("python", ""),
        ("python=3.10", "3.10"),
        ("python=3.10.4", "3.10"),
        ("python==3.9.1=build_0", "3.9"),
        ("python 3.9.*", "3.9"),
        ("python=3", "3.11"),
        ("python>=3.8", "3.11"),
        ("python>=3.8,<3.11", "3.10"),
        ("python<3.11.5", "3.11"),
        ("python>3.11", "3.20"),
        ("python>3.11.2", "3.11"),
        ("python<=3.10", "3.10"),
        ("python~=3.9", "3.11"),
        ("python~=3.9.2", "3.9"),
        ("python!=3.11", "3.20"),
        ("python!=3.11.4", "3.11"),
    ],
)
def test_the_python_is_the_gateways_own_where_that_is_asked_for_too(line: str, python: str) -> None:
    assert conda(line).python == python


@pytest.mark.parametrize("line", ["python=2.7", "python<3.0", "python>=4"])
def test_a_python_of_another_age_is_refused(line: str) -> None:
    assert "accepted: a Python 3" in refused({"conda_file": {"dependencies": [line]}})


def test_conda_only_packages_are_named_and_tools_are_not() -> None:
    recipe = conda("pip=23", "setuptools", "wheel", "cudatoolkit=11.8", "r-base", "numpy")
    assert recipe.requirements == ("numpy",)
    said = [note.split(":")[0] for note in recipe.left_out]
    assert said == ["conda package cudatoolkit=11.8", "conda package r-base"]
    assert recipe.notes == ()


def test_what_only_conda_has_is_in_a_file_for_its_tools_with_all_the_rest() -> None:
    tree = {
        "channels": ["conda-forge", "https://conda.example/main"],
        "dependencies": [
            "numpy>=1.2,<2",
            "gdal=3.8=py_1",
            "conda-forge::r-base",
            {"pip": ["azureml-defaults", "six"]},
        ],
    }
    recipe = of({"conda_file": tree})
    assert recipe.conda.splitlines() == [
        *("channels:", '  - "conda-forge"', '  - "https://conda.example/main"', "dependencies:"),
        *(f'  - "python={OWN[0]}.{OWN[1]}"', '  - "pip"', '  - "numpy>=1.2,<2"', '  - "gdal=3.8=py_1"'),
        *('  - "conda-forge::r-base"', "  - pip:", '    - "six"'),
    ]
    assert recipe.requirements == ("numpy>=1.2,<2", "six")
    asked = conda("python=3.10", "pip=23", "gdal")
    assert [line for line in asked.conda.splitlines() if "p" in line][1:] == ['  - "python=3.10"', '  - "pip=23"']
    assert conda("numpy", "pip").conda == ""


@pytest.mark.parametrize("channel", ["file:///etc", "/etc", "../x", "http://conda.example", "a\nb", "${HOME}"])
def test_a_channel_of_this_machine_is_refused(channel: str) -> None:
    said = refused({"conda_file": {"channels": [channel], "dependencies": ["gdal"]}})
    assert "accepted: a name, or an https address" in said


@pytest.mark.parametrize("line", ["gdal @ file:///etc", "gdal[url=/etc/x]", "/etc/x::gdal", "gdal=$(id)"])
def test_a_conda_package_that_is_no_plain_name_is_left_out_of_it_and_named(line: str) -> None:
    recipe = conda(line, "r-base")
    assert "etc" not in recipe.conda
    assert "$" not in recipe.conda
    assert any("no plain name" in note for note in recipe.notes)


@pytest.mark.parametrize(
    "line",
    [
        "numpy @ file:///etc/passwd",
        "numpy --index-url=https://evil.org",
        "numpy; -e .",
        "numpy[version='>=1.2']",
        "numpy>=1|<0",
        "numpy\n-e .",
        "-e .",
        "../../secret",
        "",
        "numpy=" + "9" * 5000,
        "python>=" + "9" * 5000,
        {"numpy": "1.2"},
        {"pip": ["numpy"], "other": 1},
        {"pip": "numpy"},
        {"pip": {"numpy": 1}},
        ["numpy"],
    ],
)
def test_what_is_no_conda_package_is_refused_in_a_short_sentence(line: Any) -> None:
    said = refused({"conda_file": {"dependencies": [line]}})
    assert "conda" in said
    assert "accepted" in said
    assert len(said) < 600


def test_a_conda_file_may_be_text_with_versions_as_they_are_written() -> None:
    text = "name: e\nchannels: [conda-forge]\ndependencies:\n- python=3.10\n- pip\n- pip:\n  - numpy==1.10\n  -\n-\n"
    recipe = of({"conda_file": text})
    assert (recipe.python, recipe.requirements, recipe.notes) == ("3.10", ("numpy==1.10",), ())


@pytest.mark.parametrize(
    "text",
    [
        "conda.yaml",
        "- a\n- b\n",
        "dependencies: [\n",
        "\x00",
        "a: &a [*a]",
        "dependencies: numpy",
        "dependencies: {a: 1}",
    ],
)
def test_a_conda_file_that_is_none_is_refused(text: str) -> None:
    assert "conda file" in refused({"conda_file": text})


def test_an_empty_conda_file_asks_for_nothing_and_its_variables_are_said_to_be_left_out() -> None:
    assert of({"conda_file": "name: e\n"}) == Recipe()
    assert "environment_variables" in conda(variables={"A": "b"}).notes[0]


# ---- requirements


@pytest.mark.parametrize(
    "line",
    [
        "numpy",
        "numpy==2.1.*",
        "numpy>=1,<2,!=1.5",
        "numpy (>=1.2)",
        "scikit_learn[extra,more]~=1.4 ; python_version < '3.12' and sys_platform == 'linux'",
        "torch==2.1+cpu",
        "a @ https://example.org/a-1.0-py3-none-any.whl",
        "a @ git+https://example.org/a.git@v1",
        "a==1 --hash=sha256:00ff --hash=sha256:aa11",
        "--index-url https://example.org/simple",
        "--extra-index-url=https://example.org/simple",
        "-i https://example.org/simple",
        "-f https://example.org/wheels",
        "--pre",
        "--only-binary=:all:",
    ],
)
def test_what_a_requirements_file_says_is_passed_on(line: str) -> None:
    assert pip(line) == (line,)


@pytest.mark.parametrize(
    "line",
    [
        "a @ file:///etc/passwd",
        "a@file:/x",
        "a @ /etc/passwd",
        "a @ git+ssh://git@example.org/a.git",
        "file:///x",
        "https://example.org/a.whl",
        "git+https://example.org/a.git",
        "./a",
        "/a",
        "a/../../x",
        "a/b",
        "~/a",
        "-e .",
        "-r other.txt",
        "-c other.txt",
        "--requirement=/etc/passwd",
        "--index-url https://a.org -e .",
        "--index-url file:///srv",
        "--index-url /srv",
        "-i https://${PIP_SECRET}@evil.org",
        "a @ https://evil.org/${HOME}",
        "-f /srv",
        "--find-links=/srv",
        "--pre -e .",
        "--only-binary :all: -e .",
        "--no-binary :all:",
        "--trusted-host evil.org",
        "a==1 --config-settings=x=y",
        "a ; python_version > '3' --global-option=x",
        "a; ${HOME}",
        "a -e .",
        "a b",
        "numpy==",
        "ünïcode",
        "a\x00b",
        "a\x1f-e",
        "a==1\u2028-e .",
        "a\r-e .",
        "a\n-e /srv",
        "-",
        "@",
    ],
)
def test_paths_and_options_of_this_machine_are_refused(line: str) -> None:
    assert "requirements: found" in refused({"conda_file": {"dependencies": [{"pip": [line]}]}})


def test_comments_empty_lines_and_long_lines_are_as_pip_reads_them() -> None:
    text = "\ufeff# all\n\nnumpy==1.2 # why\n  pandas   >= 2  \nscipy \\\n  >=1\r\na @ https://x.org/a.whl#sha1=0\n"
    recipe = of({"build": {"path": "."}}, files={"requirements.txt": text.encode()})
    assert recipe.requirements == ("numpy==1.2", "pandas >= 2", "scipy >=1", "a @ https://x.org/a.whl#sha1=0")


@pytest.mark.parametrize("name", ["azureml-defaults", "AzureML_Inference.Server-HTTP==1.0", "azureml-defaults[x]>=1"])
def test_azures_own_server_is_left_out(name: str) -> None:
    recipe = conda({"pip": [name, "numpy"]})
    assert recipe.requirements == ("numpy",)
    assert "left out" in recipe.notes[0]


def test_of_a_build_context_the_uppermost_requirements_count() -> None:
    files = {"a/b/requirements.txt": b"far", "b/requirements.txt": b"near", "a/requirements.txt": b"first"}
    recipe = of({"build": {"path": "."}}, files={**files, "not-requirements.txt": b"x", "Dockerfile": b"FROM x"})
    assert recipe.requirements == ("first",)
    assert "a/requirements.txt" in recipe.notes[0]


def test_a_build_context_that_says_nothing_here_is_refused() -> None:
    build = {"build": {"path": "."}}
    assert "no requirements.txt" in refused(build, files={"Dockerfile": b"FROM x"})
    assert "UTF-8" in refused(build, files={"requirements.txt": b"\xff\xfe"})
    assert "bytes" in refused(build, files={"requirements.txt": b"#" * (1 << 20) + b"#"})


def test_content_that_is_gone_refuses_the_environment() -> None:
    def gone(_: str) -> bytes:
        raise FileNotFoundError

    environment = ScriptEnvironment(document={"build": {"path": "."}}, files=(("requirements.txt", "0", 1),))
    with pytest.raises(EnvironmentRefused, match="cannot be read"):
        recipe_of(environment, gone, OWN)
    assert recipe_of(ScriptEnvironment(document={"build": None}), gone, OWN) == Recipe()


@pytest.mark.parametrize(
    "line", ["a" * 300_000 + "!", "a" + " " * 300_000 + "!", "a;" + " x" * 100_000 + "$", "," * 300_000]
)
def test_no_line_takes_long(line: str) -> None:
    began = time.process_time()
    assert len(refused({"conda_file": {"dependencies": [{"pip": [line]}]}})) < 600
    assert time.process_time() - began < 2


_LINES = st.text(alphabet=st.sampled_from("ab1.-_=<>~!@;:/\\${}[]()'\"# \n\r\t\x0b\x85,+*\u2028"), max_size=40)


@given(st.lists(_LINES, max_size=4))
def test_whatever_is_passed_on_is_one_line_without_paths_and_variables(lines: list[str]) -> None:
    try:
        kept = pip(*lines)
    except EnvironmentRefused:
        return
    for one in kept:
        assert one.splitlines() == [one]
        assert not re.search(r"[$\\{]", one)
        assert "/" not in one.partition(";")[0] or "https://" in one or "http://" in one


@given(
    st.recursive(
        st.none() | st.text(max_size=9) | st.integers(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["pip", "a"]), inner, max_size=2),
    )
)
def test_any_tree_is_a_recipe_or_refused(tree: Any) -> None:
    try:
        recipe = of({"conda_file": {"dependencies": tree}})
    except EnvironmentRefused:
        return
    assert isinstance(recipe, Recipe)


# ---- what may be built where scripts are shut in


@pytest.mark.parametrize(
    "line",
    [
        "a @ https://x.org/a-1.0.tar.gz",
        "a @ https://x.org/a.zip",
        "a @ git+https://x.org/a-1-py3-none-any.whl",
        "a @ https://x.org/a.whl/",
        "a @ https://x.org/.whl",
        "a @ https://x.org/a%2F.whl",
        "a @ https://x.org/a.tar.gz?b.whl",
        "a @ https://x.org/a.tar.gz#b.whl",
        "a[b] @ https://x.org/a.tar.gz ; python_version > '3'",
    ],
)
def test_what_is_no_wheel_is_refused(line: str) -> None:
    recipe = conda({"pip": ["numpy", line]})
    with pytest.raises(EnvironmentRefused, match=r"what is no wheel runs its own code .* end in \.whl"):
        wheels_only(recipe, has_tool=False)


def test_wheels_and_names_stay_and_nobody_else_says_what_may_be_built() -> None:
    lines = (
        "a @ https://x.org/p/a-1.0%2Bcpu-py3-none-any.whl#sha256=0",
        "b>=1",
        "--find-links https://u@x.org/a.tar.gz",
    )
    recipe = conda({"pip": [*lines, "--only-binary=:none:", "--only-binary :all:"]})
    assert wheels_only(recipe, has_tool=True).requirements == lines


def test_what_a_conda_tool_would_make_is_refused() -> None:
    recipe = conda("gdal=3.8", {"pip": ["numpy"]})
    assert wheels_only(recipe, has_tool=False) == recipe
    with pytest.raises(EnvironmentRefused, match=r"gdal=3\.8.*may run scripts"):
        wheels_only(recipe, has_tool=True)
