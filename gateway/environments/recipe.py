"""From an environment's document to what must be installed, and a sentence for whatever cannot be honoured. Pure.

What: Azure's environments are container images; here a script runs in a virtual environment. Of a conda file the pip
part and the Python version count, and of the conda part the packages that PyPI has under a name that is known to be
the same thing; the rest is named. Images of Azure's own stand for the gateway's interpreter, for they hold no package
of the user's. The packages that Azure's inference server needs are not needed here.
Errors: EnvironmentRefused: what was found, and what would be accepted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

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
_CONDA = re.compile(r"(?:[\w.-]+::)?([A-Za-z0-9_.-]+)\s*(.*)")
_PIP_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_OPTIONS = (
    "-i",
    "--index-url",
    "--extra-index-url",
    "-f",
    "--find-links",
    "--pre",
    "--prefer-binary",
    "--only-binary",
)
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
    install and no Python asked for: the gateway's own interpreter as it is."""

    python: str = ""
    requirements: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def recipe_of(environment: ScriptEnvironment, read: Callable[[str], bytes]) -> Recipe:
    """`read` gives the content of a file of the build context by its SHA-256. Errors: EnvironmentRefused."""
    document = environment.document
    if document is None:
        return _named(environment.reference)
    if document.get("inference_config"):
        raise EnvironmentRefused("BadArgument", "the environment is a custom container, which is not run here")
    if document.get("conda_file"):
        return _of_conda(_tree_of(document["conda_file"]))
    if document.get("build"):
        return _of_context(environment, read)
    return _of_image(str(document.get("image") or ""))


def _named(reference: str) -> Recipe:
    name = reference.removeprefix("azureml:").partition("@")[0].partition(":")[0]
    if not name or name.lower() == LOCAL:
        return Recipe()
    if name.lower().startswith("azureml-") or reference.startswith("azureml://"):
        return Recipe(notes=(f"{reference}: a curated environment is the gateway's own interpreter here",))
    raise EnvironmentRefused("BadArgument", f"there is no registered environment {reference!r}; {_ACCEPTED}")


def _of_image(image: str) -> Recipe:
    if not image:
        return Recipe()
    if image.lower().startswith("mcr.microsoft.com/"):
        return Recipe(notes=(f"image {image}: the gateway's own interpreter is used, and no container",))
    raise EnvironmentRefused("BadArgument", f"found the image {image!r}, and no container is run here; {_ACCEPTED}")


def _of_context(environment: ScriptEnvironment, read: Callable[[str], bytes]) -> Recipe:
    found = [(path, digest) for path, digest, _ in environment.files if path.rsplit("/", 1)[-1] == "requirements.txt"]
    if not found:
        raise EnvironmentRefused("BadArgument", f"the build context has no requirements.txt; {_ACCEPTED}")
    path, digest = min(found, key=lambda one: one[0].count("/"))
    text = read(digest).decode("utf-8", "replace")
    requirements, notes = _pip(text.splitlines())
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


def _of_conda(tree: dict[str, Any]) -> Recipe:
    python = ""
    requirements: list[str] = []
    notes: list[str] = []
    dependencies = tree.get("dependencies") or []
    if not isinstance(dependencies, list):
        raise EnvironmentRefused(
            "BadArgument", "the conda file's dependencies are no list; accepted: a list of packages"
        )
    for one in dependencies:
        if isinstance(one, dict):
            lines, said = _pip(map(str, one.get("pip") or []))
            requirements += lines
            notes += said
            continue
        found = _CONDA.fullmatch(str(one).strip())
        if found is None:
            raise EnvironmentRefused("BadArgument", f"the conda file names {one!r}; accepted: NAME, NAME=VERSION")
        name, version = found[1].lower(), found[2].strip()
        if name == "python":
            python = ".".join(re.findall(r"\d+", version)[:2])
        elif name in _ON_PYPI:
            requirements.append(_ON_PYPI[name] + _pip_version(version))
        elif name not in _TOOLS:
            notes.append(
                f"conda package {one}: left out, for it is not known to be the same on PyPI; put it under pip"
            )
    return Recipe(python=python, requirements=tuple(requirements), notes=tuple(notes))


def _pip(lines: Iterable[str]) -> tuple[tuple[str, ...], list[str]]:
    """Lines of a requirements file without comments, and what is left out of them."""
    kept: list[str] = []
    notes: list[str] = []
    for line in lines:
        text = re.sub(r"(^|\s)#.*", "", line).strip()
        if not text:
            continue
        if text.startswith("-"):
            option = re.split(r"[\s=]", text, maxsplit=1)[0]
            if option not in _OPTIONS:
                raise EnvironmentRefused(
                    "BadArgument", f"requirements: found {text!r}; accepted options: {', '.join(_OPTIONS)}"
                )
            kept.append(text)
            continue
        found = _PIP_NAME.match(text)
        if found is None or "://" in text.partition("@")[0] or text.startswith((".", "/")):
            raise EnvironmentRefused(
                "BadArgument", f"requirements: found {text!r}; accepted: packages by name, such as numpy==2.1"
            )
        if found[0].lower().replace("_", "-") in _NOT_NEEDED:
            notes.append(f"{found[0]}: left out, scoring scripts need no server of their own here")
        else:
            kept.append(text)
    return tuple(kept), notes


def _pip_version(version: str) -> str:
    """`=1.2` and `=1.2=build` are any 1.2; comparisons are the same in both worlds."""
    if not version:
        return ""
    if version.startswith("=") and not version.startswith("=="):
        return f"=={version[1:].split('=')[0].removesuffix('.*')}.*"
    return version.replace(" ", "")
