"""A Triton repository as a deployment serves it: one model, one version, and what its configuration says.

Why two ways in: a folder is read where it lies, so that its mistakes are told before anything is sent; a registered
one by the hashes of its files, which `read` turns into content.
Bounds: FILES_MAX files of a folder.
Errors: ModelFileError for the key of the deployment's file that is to blame, with every mistake of the configuration.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.controlplane.model_files import ModelFileError
from gateway.controlplane.triton.repository import (
    CONFIG,
    RepositoryError,
    Version,
    choose_model,
    choose_version,
    models_in,
)
from gateway.controlplane.triton.said import Said
from gateway.controlplane.triton.text_format import TEXT_BYTES_MAX, TextError
from gateway.resources import AssetModel, LocalModel, TritonModel

if TYPE_CHECKING:
    from gateway.controlplane.triton.model_config import ModelConfig

FILES_MAX = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class TritonServed:
    """`model` is the ONNX file, with what lies beside it. `triton` is what the repository calls it, None for a model
    that came without one; `said` what its configuration says."""

    model: LocalModel | AssetModel
    triton: TritonModel | None = None
    said: Said = field(default_factory=Said)


def of_folder(path: Path, wanted: str) -> TritonServed:
    """A local repository; `wanted` is the model's name, "" for the only one."""
    try:
        if not path.is_dir():
            what = "is no folder" if path.exists() else "is not there"
            raise ModelFileError("model.path", f"{path} {what}; accepted: the folder of a Triton repository")
        paths = list(_paths(path))
    except OSError as error:
        raise ModelFileError("model.path", f"cannot look at {path}: {error.strerror}") from error

    def read(inside: str) -> bytes:
        with (path / inside).open("rb") as file:
            return file.read(TEXT_BYTES_MAX + 1)

    found, said, triton = _chosen(paths, path.resolve().name, read, wanted, "model.path")
    return TritonServed(model=LocalModel(path=path / found.entry), triton=triton, said=said)


def of_asset(
    reference: str,
    files: Sequence[tuple[str, str, int]],
    folder: str,
    read: Callable[[str, str], bytes],
    origin: Callable[[str], str],
    wanted: str,
) -> TritonServed:
    """A registered repository: `files` as (path, SHA-256, bytes), `folder` its name. `read` gives the content of a
    file by its path and hash, `origin` where a path came from."""
    hashes = {path: digest for path, digest, _ in files}
    found, said, triton = _chosen(list(hashes), folder, lambda path: read(path, hashes[path]), wanted, "model")
    model = AssetModel(
        reference=reference,
        files=tuple(one for one in files if one[0].startswith(found.folder)),
        entry=found.entry,
        origin=origin(found.entry),
    )
    return TritonServed(model=model, triton=triton, said=said)


def _chosen(
    paths: Sequence[str], folder: str, read: Callable[[str], bytes], wanted: str, key: str
) -> tuple[Version, Said, TritonModel]:
    try:
        model = choose_model(models_in(paths, folder), wanted)
        config = _config(model.config, read, key) if model.config else None
        said = _meaning(config, model.name) if config is not None else Said()
        if said.mistakes:
            raise ModelFileError(key, f"{model.config}: {'; '.join(said.mistakes)}")
        version = choose_version(
            model,
            config.version_policy if config is not None else None,
            config.default_model_filename if config is not None else "",
        )
    except RepositoryError as error:
        raise ModelFileError("gateway.runtime.model" if error.is_choice else key, str(error)) from error
    notes = [f"{CONFIG}: {note}" for note in (*said.notes, *version.notes)]
    return version, said, TritonModel(name=model.name, version=str(version.number), notes=tuple(notes))


# Every field that Triton has takes a while to import, and most gateways read none.


def _config(path: str, read: Callable[[str], bytes], key: str) -> ModelConfig:
    from gateway.controlplane.triton.model_config import ModelConfig
    from gateway.controlplane.triton.typed import read_as

    try:
        return read_as(read(path), ModelConfig)
    except OSError as error:
        raise ModelFileError(key, f"{path} cannot be read: {error.strerror}") from error
    except TextError as error:
        raise ModelFileError(key, f"{path}: {error}") from error


def _meaning(config: ModelConfig, name: str) -> Said:
    from gateway.controlplane.triton.meaning import meaning_of

    return meaning_of(config, name)


def _paths(folder: Path) -> Iterator[str]:
    count = 0
    for place, names, files in os.walk(folder):
        names[:] = sorted(name for name in names if not name.startswith("."))
        for name in files:
            count += 1
            if count > FILES_MAX:
                raise ModelFileError(
                    "model.path", f"{folder} holds more than {FILES_MAX} files; accepted: at most that"
                )
            yield Path(place, name).relative_to(folder).as_posix()
