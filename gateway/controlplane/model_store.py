"""Copies of the models that are served, by content, in the state folder: `models/DIGEST/NAME`.

Why: a scorer that is replaced reads its models again. By then the file that the YAML names may have been overwritten,
with a model that was refused or with one that nobody has asked to serve yet; the copy is what was accepted.
Ownership: a copy stays for as long as what is served names it. Copying blocks: call it on a thread.
Errors: a model that cannot be read or copied is served from where it lies (the loader says what is wrong with it, a
warning what is wrong with the copy); ModelChanged when it changes while it is copied.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import tempfile
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from runtimes import LoadFailed, model_files

log = logging.getLogger(__name__)


class ModelChanged(Exception):
    """The model changed while it was copied."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredModel:
    """A model file to load, the file that it is a copy of, and its SHA-256 ("" where it cannot be read)."""

    path: Path
    origin: Path
    sha256: str


class ModelStore:
    """One folder of copies; without a folder, models are served from where they lie. Used by one change at a time."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def take(self, origin: Path) -> StoredModel:
        """The copy of this model, made if there is none. Errors: ModelChanged."""
        sha256 = ""
        try:
            sha256 = _sha256(origin)
            files = (origin, *model_files(origin))
            digests = (sha256, *map(_sha256, files[1:]))
        except (OSError, ValueError, LoadFailed):
            # The loader finds the same and says it of the deployment.
            return StoredModel(path=origin, origin=origin, sha256=sha256)
        if self._folder is None:
            return StoredModel(path=origin, origin=origin, sha256=sha256)
        folder = self._folder / _digest(files, digests)
        if not _holds(folder, files, digests):
            try:
                self._copy(files, digests, folder)
            except OSError as error:
                log.warning("%s is served from where it lies, and must stay as it is: no copy, %s", origin, error)
                return StoredModel(path=origin, origin=origin, sha256=sha256)
        return StoredModel(path=folder / origin.name, origin=origin, sha256=sha256)

    def keep_only(self, paths: Collection[Path]) -> None:
        """Remove every copy but these, and what an interrupted copy left."""
        kept = {path.parent for path in paths}
        if self._folder is not None and self._folder.is_dir():
            for folder in self._folder.iterdir():
                if folder not in kept:
                    shutil.rmtree(folder, ignore_errors=True)

    def _copy(self, files: Sequence[Path], digests: Sequence[str], folder: Path) -> None:
        folder.parent.mkdir(mode=0o700, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix="unfinished-", dir=folder.parent))
        try:
            for file, digest in zip(files, digests, strict=True):
                copy = unfinished / file.name
                shutil.copyfile(file, copy)
                if _sha256(copy) != digest:
                    raise ModelChanged(f"the model file {file} changed while it was read; reload once it is whole")
            shutil.rmtree(folder, ignore_errors=True)
            unfinished.rename(folder)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)


def _digest(files: Sequence[Path], digests: Sequence[str]) -> str:
    """Of names and contents: a model finds its external data by name."""
    lines = "".join(f"{digest} {file.name}\n" for file, digest in zip(files, digests, strict=True))
    return hashlib.sha256(lines.encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _holds(folder: Path, files: Sequence[Path], digests: Sequence[str]) -> bool:
    """Whether the copies are there and whole: nothing was flushed to the disk, so a power cut may have cut them."""
    try:
        return all(_sha256(folder / file.name) == digest for file, digest in zip(files, digests, strict=True))
    except OSError:
        return False
