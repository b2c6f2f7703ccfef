"""Which model of a repository is served, and which of its versions: decided by the names of its files.

Layout: `<model>/config.pbtxt` and `<model>/<version>/model.onnx`, in the folder itself or in the one folder that it
holds; or the folder is the model. A version is a number that does not begin with 0; other folders are not looked at.
Errors: RepositoryError, one sentence. Pure.
Source: Triton's model_repository.md and model_lifecycle (which versions a policy admits).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gateway.suggest import did_you_mean

if TYPE_CHECKING:
    from gateway.controlplane.triton.model_config import VersionPolicy

CONFIG = "config.pbtxt"
FILENAME = "model.onnx"

_VERSION = re.compile(r"([1-9][0-9]{0,17})/.+")
_LISTED_MAX = 12


class RepositoryError(Exception):
    """The repository cannot be served. `is_choice`: it is `gateway.runtime.model` that is wrong."""

    def __init__(self, text: str, *, is_choice: bool = False) -> None:
        super().__init__(text)
        self.is_choice = is_choice


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFolder:
    """One model. `folder` is what its paths begin with, "" or with a slash at the end; `paths` are inside it."""

    name: str
    folder: str
    paths: tuple[str, ...]

    @property
    def config(self) -> str:
        """The path of its configuration, "" where it has none."""
        return f"{self.folder}{CONFIG}" if CONFIG in self.paths else ""

    @property
    def versions(self) -> dict[int, list[str]]:
        """The files of each version, inside its folder."""
        found: dict[int, list[str]] = {}
        for path in self.paths:
            if _VERSION.fullmatch(path):
                number, _, rest = path.partition("/")
                found.setdefault(int(number), []).append(rest)
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """What is served: `entry` is the ONNX file's path in the repository, `folder` that of its version."""

    number: int
    entry: str
    folder: str
    notes: tuple[str, ...] = field(default=())


def models_in(paths: Iterable[str], name: str) -> list[ModelFolder]:
    """The models of a repository, which is called `name` itself; hidden files do not count."""
    shown = [path for path in paths if not any(part.startswith(".") for part in path.split("/"))]
    if _is_model(shown):
        return [ModelFolder(name=name, folder="", paths=tuple(shown))]
    folders = _folders(shown)
    found = list(_models(folders, ""))
    if not found and len(folders) == 1:
        (wrapping, inside), *_ = folders.items()
        found = list(_models(_folders(inside), f"{wrapping}/"))
    return found


def _models(folders: Mapping[str, Sequence[str]], above: str) -> Iterator[ModelFolder]:
    for name, inside in sorted(folders.items()):
        if _is_model(inside):
            yield ModelFolder(name=name, folder=f"{above}{name}/", paths=tuple(inside))


def _is_model(paths: Sequence[str]) -> bool:
    return CONFIG in paths or any(_VERSION.fullmatch(path) for path in paths)


def _folders(paths: Iterable[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for path in paths:
        top, slash, rest = path.partition("/")
        if slash:
            found.setdefault(top, []).append(rest)
    return found


def choose_model(models: Sequence[ModelFolder], wanted: str) -> ModelFolder:
    """The model that is asked for, or the only one."""
    names = [model.name for model in models]
    if not models:
        raise RepositoryError(
            "it holds no model; accepted: a Triton repository, <model>/config.pbtxt and <model>/<version>/model.onnx"
        )
    if wanted:
        for model in models:
            if model.name == wanted:
                return model
        raise RepositoryError(f"the repository has no model {wanted!r}{did_you_mean(wanted, names)}", is_choice=True)
    if len(models) > 1:
        raise RepositoryError(
            f"it holds {len(models)} models ({_listed(names)}) and a deployment serves one; name it in "
            "gateway.runtime.model, and make a deployment for each of the others"
        )
    return models[0]


def choose_version(model: ModelFolder, policy: VersionPolicy | None, filename: str) -> Version:
    """The newest version that the policy admits."""
    there = sorted(model.versions, reverse=True)
    if not there:
        raise RepositoryError(
            f"model {model.name!r} has no version; accepted: folders 1, 2, ... that hold {FILENAME}"
        )
    admitted = _admitted(there, policy)
    if not admitted:
        raise RepositoryError(
            f"version_policy of model {model.name!r} admits none of its versions, {_listed(map(str, there))}"
        )
    newest = admitted[0]
    files = model.versions[newest]
    name = filename or FILENAME
    # Triton takes a folder of that name for one that holds the model.
    inside = next((one for one in (name, f"{name}/{FILENAME}") if one in files), "")
    if not inside:
        raise RepositoryError(
            f"version {newest} of model {model.name!r} holds no {name}, but {_listed(sorted(files))}; ONNX models "
            f"are served: accepted is {FILENAME}, or the file that default_model_filename names"
        )
    folder = f"{model.folder}{newest}/"
    return Version(
        number=newest,
        entry=f"{folder}{inside}",
        folder=folder,
        notes=tuple(_notes(newest, admitted, there, policy)),
    )


def _admitted(there: Sequence[int], policy: VersionPolicy | None) -> list[int]:
    """Newest first."""
    if policy is None:
        return list(there[:1])
    if policy.all is not None:
        return list(there)
    if policy.specific is not None:
        return [number for number in there if number in policy.specific.versions]
    latest = policy.latest.num_versions if policy.latest is not None else 1
    return list(there[: max(1, latest)])


def _notes(newest: int, admitted: Sequence[int], there: Sequence[int], policy: VersionPolicy | None) -> Iterator[str]:
    if len(admitted) > 1:
        yield (
            f"version_policy: admits versions {_listed(map(str, admitted))}; a deployment serves one, the newest: "
            f"{newest}"
        )
    if policy is not None and policy.specific is not None:
        missing = sorted(set(policy.specific.versions) - set(there))
        if missing:
            yield f"version_policy: names versions that are not there: {_listed(map(str, missing))}"


def _listed(names: Iterable[str]) -> str:
    shown = list(names)
    return ", ".join(shown[:_LISTED_MAX]) + (", ..." if len(shown) > _LISTED_MAX else "")
