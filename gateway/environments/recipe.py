"""From an environment's document to what must be installed, and a sentence for whatever cannot be honoured. Pure.

What: Azure's environments are container images; here a script runs in a virtual environment. Of a conda file the pip
part and the Python version count, and of the conda part the packages that PyPI has under a name that is known to be
the same thing; for the rest there is a file for a conda tool, and a sentence where no such tool is. Images of Azure's
own stand for the gateway's interpreter, for they hold no package of the user's. The packages that Azure's inference
server needs are not needed here.
An environment for an MLflow model gets mlflow-skinny where it names no mlflow, for nothing else loads the model.
What a requirement may be: a package by name, or fetched over https; never a path or a variable of this machine.
Errors: EnvironmentRefused: what was found, and what would be accepted.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from gateway.environments import conda
from gateway.resources import ScriptEnvironment
from gateway.yaml_text import Entries, Items, Node, Scalar, read_documents

LOCAL = "local"
# Conda's name of a package → PyPI's. The same thing under both.
_ON_PYPI = {
    **{
        name: name
        for name in (
            *("numpy", "pandas", "scipy", "scikit-learn", "joblib", "matplotlib", "pillow", "requests", "pyyaml"),
            *("lightgbm", "xgboost", "catboost", "statsmodels", "tensorflow", "keras", "transformers", "onnx"),
            *("onnxruntime", "nltk", "spacy", "gensim", "flask", "fastapi", "pydantic", "pyarrow", "numba"),
            *("networkx", "tqdm", "seaborn", "plotly", "cloudpickle", "dill", "shap", "mlflow", "h5py", "opencv"),
        )
    },
    "pytorch": "torch",
    "py-xgboost": "xgboost",
    "opencv": "opencv-python-headless",
}
_TOOLS = frozenset({"pip", "setuptools", "wheel"})
# What Azure's own server needs, and this one does not.
_NOT_NEEDED = frozenset({"azureml-defaults", "azureml-inference-server-http", "azureml-model-management-sdk"})
_CONDA = re.compile(r"(?:[\w./-]+::)?([A-Za-z0-9_][A-Za-z0-9_.-]*)\s*([^A-Za-z0-9_.-].*|\s\d.*)?")
_CONDA_PART = re.compile(r"(==|=|>=|<=|>|<|!=|~=)?\s*(\d[\w.+!]*?)(\.?\*)?(?:\s*=\s*[\w.*]+|\s+\w+)?")
_CONDA_ACCEPTED = "accepted: NAME, NAME=VERSION, NAME>=VERSION,<VERSION"
_URL = r"(?:git\+)?https?://[^\s;${}]+"
# By its name alone, for by that installers decide whether there is something to build.
_WHEEL = re.compile(r"https?://[^?#]*/[A-Za-z0-9](?:[\w.+!-]|%2[Bb])*\.whl(?:[?#].*)?", re.ASCII)
_VERSIONS = r"(?:===|==|~=|!=|<=|>=|<|>)\s*[\w.*+!-]+"
_REQUIREMENT = re.compile(
    r"(?P<name>[A-Za-z0-9](?:[\w.-]*[A-Za-z0-9])?)\s*(?:\[[\w\s.,-]*\])?\s*"
    rf"(?:@\s*(?P<address>{_URL})|\(?\s*{_VERSIONS}(?:\s*,\s*{_VERSIONS})*\s*,?\s*\)?)?"
    # An option hides behind a marker as well as behind a name.
    r"\s*(?:;(?:(?!\s-)[^${}\\])*)?(?:\s+--hash[= ]\w+:[0-9a-fA-F]+)*",
    re.ASCII,
)
_OPTION = re.compile(
    r"(?:-i|--index-url|--extra-index-url|-f|--find-links)(?:\s+|=)https?://[^\s;${}]+"
    r"|--pre|--prefer-binary|--only-binary(?:\s+|=)[\w:.,-]+",
    re.ASCII,
)
_OPTIONS = (
    "--index-url, --extra-index-url and --find-links with an https address, --pre, --prefer-binary, --only-binary"
)
_REQUIREMENTS_BYTES_MAX = 1024 * 1024
# Whatever brings the module `mlflow`.
_MLFLOW = frozenset({"mlflow", "mlflow-skinny", "azureml-mlflow"})
_MLFLOW_ADDED = "mlflow-skinny"
_MLFLOW_NOTE = "mlflow-skinny: added, for the environment names no mlflow, and the model is loaded by it"
_AZURE_IMAGES = "mcr.microsoft.com/"
_SAID_MAX = 200
_NEWEST_PYTHON = 20
_ACCEPTED = (
    "accepted: a conda file, a build context with a requirements.txt, one of Azure's inference images, or local"
)


class EnvironmentRefused(Exception):
    """There is no such environment here; `code` is what Azure calls the failure."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What to install: `python` as "3.10" ("" for the gateway's own), lines of a requirements file. Nothing to
    install and no Python asked for: the gateway's own interpreter as it is. `conda`: the file for a conda tool, where
    PyPI does not have all that is asked for; `left_out`: what is said instead where there is no tool."""

    python: str = ""
    requirements: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    conda: str = ""
    left_out: tuple[str, ...] = ()


def recipe_of(
    environment: ScriptEnvironment,
    read: Callable[[str], bytes],
    own: tuple[int, int] = (sys.version_info.major, sys.version_info.minor),
) -> Recipe:
    """`read` gives the content of a file of the build context by its SHA-256; `own` is the gateway's Python, which is
    preferred where several would do. Errors: EnvironmentRefused."""
    recipe = _plain_recipe(environment, read, own)
    return _with_mlflow(recipe) if environment.needs_mlflow else recipe


def wheels_only(recipe: Recipe, has_tool: bool) -> Recipe:
    """The same where building it runs nothing of whoever asks for it. `has_tool`: a conda tool would make it.
    Errors: EnvironmentRefused."""
    why = "script_sandbox is bwrap, and building an environment is outside of the sandbox"
    if recipe.conda and has_tool:
        raise EnvironmentRefused(
            "BadArgument",
            f"found {_short('; '.join(recipe.left_out))}: conda packages may run scripts when they are installed, "
            f"{why}; accepted: packages that PyPI has as wheels, under pip",
        )
    for line in recipe.requirements:
        found = _REQUIREMENT.fullmatch(line)
        address = found["address"] if found is not None else None
        if address and _WHEEL.fullmatch(address) is None:
            raise EnvironmentRefused(
                "BadArgument",
                f"requirements: found {_short(line)}: what is no wheel runs its own code when it is built, {why}; "
                "accepted: packages by name, and https addresses that end in .whl",
            )
    # Nobody else says what may be built.
    return replace(
        recipe, requirements=tuple(one for one in recipe.requirements if not one.startswith("--only-binary"))
    )


def _with_mlflow(recipe: Recipe) -> Recipe:
    """The gateway's own interpreter, and an environment that names an mlflow, stay as they are."""
    if recipe == Recipe(notes=recipe.notes) or _names_mlflow(recipe.requirements):
        return recipe
    requirements = (*recipe.requirements, _MLFLOW_ADDED)
    remade = recipe.conda and conda.and_pip(recipe.conda, _MLFLOW_ADDED)
    return replace(recipe, requirements=requirements, conda=remade, notes=(*recipe.notes, _MLFLOW_NOTE))


def _names_mlflow(lines: Iterable[str]) -> bool:
    return any(_name(line) in _MLFLOW for line in lines)


def _name(line: str) -> str:
    """The package that a requirement names, in the one spelling; of an option ""."""
    found = _REQUIREMENT.fullmatch(line)
    return re.sub(r"[-_.]+", "-", found["name"].lower()) if found is not None else ""


def _plain_recipe(environment: ScriptEnvironment, read: Callable[[str], bytes], own: tuple[int, int]) -> Recipe:
    document = environment.document
    if document is None:
        return _named(environment.reference)
    image = str(document.get("image") or "")
    if document.get("inference_config") and not image.lower().startswith(_AZURE_IMAGES):
        raise EnvironmentRefused(
            "BadArgument", f"the environment is a custom container, and no container is run here; {_ACCEPTED}"
        )
    if document.get("conda_file"):
        recipe = _of_conda(_tree_of(document["conda_file"]), own)
        if not image or image.lower().startswith(_AZURE_IMAGES):
            return recipe
        note = f"image {image}: no container is run, only the conda file counts"
        return replace(recipe, notes=(note, *recipe.notes))
    if document.get("build"):
        return _of_context(environment, read)
    return _of_image(image)


def _named(reference: str) -> Recipe:
    name = reference.removeprefix("azureml:").partition("@")[0].partition(":")[0]
    if not name or name.lower() == LOCAL:
        return Recipe()
    if name.lower().startswith("azureml-") or reference.lower().startswith("azureml://registries/azureml/"):
        return Recipe(notes=(f"{reference}: a curated environment is the gateway's own interpreter here",))
    raise EnvironmentRefused("BadArgument", f"there is no registered environment {reference!r}; {_ACCEPTED}")


def _of_image(image: str) -> Recipe:
    if not image:
        return Recipe()
    if image.lower().startswith(_AZURE_IMAGES):
        return Recipe(notes=(f"image {image}: the gateway's own interpreter is used, and no container",))
    raise EnvironmentRefused("BadArgument", f"found the image {image!r}, and no container is run here; {_ACCEPTED}")


def _of_context(environment: ScriptEnvironment, read: Callable[[str], bytes]) -> Recipe:
    found = [one for one in environment.files if one[0].rsplit("/", 1)[-1] == "requirements.txt"]
    if not found:
        raise EnvironmentRefused("BadArgument", f"the build context has no requirements.txt; {_ACCEPTED}")
    path, digest, size = min(found, key=lambda one: (one[0].count("/"), one[0]))
    if size > _REQUIREMENTS_BYTES_MAX:
        raise EnvironmentRefused(
            "BadArgument", f"{path} has {size} bytes; accepted: a list of packages, at most {_REQUIREMENTS_BYTES_MAX}"
        )
    try:
        text = read(digest).decode("utf-8-sig")
    except OSError as error:
        raise EnvironmentRefused("BadArgument", f"{path} of the build context cannot be read") from error
    except UnicodeDecodeError as error:
        raise EnvironmentRefused("BadArgument", f"{path} is not UTF-8; accepted: a list of packages") from error
    requirements, notes = _pip([text])
    return Recipe(
        requirements=requirements, notes=(f"of the build context only {path} counts: no image is built", *notes)
    )


def _tree_of(conda: Any) -> dict[str, Any]:
    if isinstance(conda, dict):
        return conda
    documents, mistakes = read_documents(str(conda).encode())
    tree = _plain(documents[0]) if documents else None
    if mistakes or not isinstance(tree, dict):
        why = str(mistakes[0]) if mistakes else "it is no mapping"
        raise EnvironmentRefused("BadArgument", f"the conda file cannot be read: {why}")
    return tree


def _plain(node: Node) -> Any:
    """Mappings, lists and texts."""
    match node:
        case Entries():
            return {name: _plain(one) for name, one in node.entries.items()}
        case Items():
            return [_plain(one) for one in node.items]
        case Scalar():
            return None if node.is_null else node.text


def _of_conda(tree: dict[str, Any], own: tuple[int, int]) -> Recipe:
    asked = _Asked()
    if tree.get("variables"):
        asked.notes.append("conda file: variables are not set; give them as environment_variables of the deployment")
    for one in _list(tree.get("dependencies"), "the conda file's dependencies are"):
        if isinstance(one, dict):
            if one.keys() != {"pip"}:
                raise EnvironmentRefused(
                    "BadArgument", f"the conda file names {_short(one)}; {_CONDA_ACCEPTED}, pip:"
                )
            lines, said = _pip(map(str, _list(one["pip"], "the conda file's pip part is")))
            asked.pip += lines
            asked.notes += said
        else:
            _conda_package(one, asked, own)
    return Recipe(
        python=asked.python,
        requirements=(*asked.on_pypi, *asked.pip),
        notes=tuple(asked.notes),
        conda=_for_a_tool(asked, tree, own) if asked.left_out else "",
        left_out=tuple(asked.left_out),
    )


@dataclass(slots=True)
class _Asked:
    """What a conda file asks for, as far as it is read. `packages`: those that a conda tool is told."""

    python: str = ""
    on_pypi: list[str] = field(default_factory=list)
    pip: list[str] = field(default_factory=list)
    packages: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def _conda_package(one: Any, asked: _Asked, own: tuple[int, int]) -> None:
    text = " ".join(str(one).split())
    found = _CONDA.fullmatch(text)
    if found is None or len(text) > _SAID_MAX:
        raise EnvironmentRefused("BadArgument", f"the conda file names {_short(one)}; {_CONDA_ACCEPTED}")
    name = found[1].lower()
    if name == "python":
        asked.python = _python(_versions(one, found[2]), own)
    elif name in _ON_PYPI:
        asked.on_pypi.append(_ON_PYPI[name] + ",".join(a + b for a, b in _versions(one, found[2])))
    elif name not in _TOOLS:
        why = "it is not known to be the same on PyPI; put it under pip, or install micromamba beside the gateway"
        if not conda.is_package(text):
            asked.notes.append(f"conda package {one}: left out, for it is no plain name with a version")
            return
        asked.left_out.append(f"conda package {one}: left out, for {why}")
    if conda.is_package(text):
        asked.packages[name] = text


def _for_a_tool(asked: _Asked, tree: dict[str, Any], own: tuple[int, int]) -> str:
    channels = [str(one) for one in _list(tree.get("channels"), "the conda file's channels are")]
    for one in channels:
        if not conda.is_channel(one):
            raise EnvironmentRefused(
                "BadArgument", f"the conda file has the channel {_short(one)}; accepted: a name, or an https address"
            )
    packages = {"python": f"python={own[0]}.{own[1]}", **({"pip": "pip"} if asked.pip else {}), **asked.packages}
    return conda.file_of(channels, list(packages.values()), asked.pip)


def _list(given: Any, what: str) -> list[Any]:
    if given is None:
        return []
    if not isinstance(given, list):
        raise EnvironmentRefused("BadArgument", f"{what} no list; accepted: a list of packages")
    return [one for one in given if one is not None]


def _versions(given: Any, text: str | None) -> list[tuple[str, str]]:
    """What conda asks for as pip's comparisons. `=1.2` and `=1.2=build` are any 1.2; a build is nothing to pip."""
    found = []
    for part in (text or "").split(","):
        plain = part.strip()
        if plain in ("", "*", "=*"):
            continue
        match = _CONDA_PART.fullmatch(plain)
        if match is None:
            raise EnvironmentRefused("BadArgument", f"the conda file names {_short(given)}; {_CONDA_ACCEPTED}")
        sign, version, star = match[1] or "==", match[2], match[3]
        if sign == "=" or (star and sign == "=="):
            found.append(("==", f"{version}.*"))
        else:
            found.append((sign, f"{version}.*" if star and sign == "!=" else version))
    return found


def _python(asked: list[tuple[str, str]], own: tuple[int, int]) -> str:
    """The Python that does: the gateway's own, else the newest; "" where none is asked for."""
    if not asked:
        return ""
    for minor in (own[1], *range(_NEWEST_PYTHON, -1, -1)):
        if all(_does((own[0], minor), sign, version) for sign, version in asked):
            return f"{own[0]}.{minor}"
    said = ",".join(a + b for a, b in asked)
    raise EnvironmentRefused("BadArgument", f"the conda file asks for python{said}; accepted: a Python {own[0]}")


def _does(python: tuple[int, int], sign: str, version: str) -> bool:
    """Whether some release of this Python may be what is asked for."""
    numbers = tuple(int(one) for one in re.findall(r"\d+", version))
    wanted = numbers[:2]
    has_more = len(numbers) > 2
    match sign:
        case "==" | "===":
            return python[: len(wanted)] == wanted
        case "~=":
            return python >= wanted and python[0] == wanted[0] and (not has_more or python == wanted)
        case ">=":
            return python >= wanted
        case ">":
            return python > wanted or (has_more and python == wanted)
        case "<=":
            return python <= wanted
        case "<":
            return python < wanted or (has_more and python == wanted)
        case _:
            return has_more or python[: len(wanted)] != wanted


def _pip(texts: Iterable[str]) -> tuple[tuple[str, ...], list[str]]:
    """Lines of requirements files without comments, and what is left out of them."""
    kept: list[str] = []
    notes: list[str] = []
    # A line that ends in a backslash goes on in the next one.
    for line in (line for text in texts for line in re.sub(r"\\\r?\n", " ", text).splitlines()):
        text = " ".join(re.sub(r"(^|\s)#.*", "", line).split())
        if not text:
            continue
        if text.startswith("-"):
            if _OPTION.fullmatch(text) is None:
                raise EnvironmentRefused(
                    "BadArgument", f"requirements: found {_short(text)}; accepted options: {_OPTIONS}"
                )
            kept.append(text)
            continue
        found = _REQUIREMENT.fullmatch(text)
        if found is None:
            raise EnvironmentRefused(
                "BadArgument", f"requirements: found {_short(text)}; accepted: packages by name, such as numpy==2.1"
            )
        if _name(text) in _NOT_NEEDED:
            notes.append(f"{found['name']}: left out, scoring scripts need no server of their own here")
        else:
            kept.append(text)
    return tuple(kept), notes


def _short(found: Any) -> str:
    said = repr(found)
    return said if len(said) <= _SAID_MAX else f"{said[:_SAID_MAX]}..."
