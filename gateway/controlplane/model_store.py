"""Models on the disk for scorers to load: folders `models/DIGEST/…` in the state folder, of content kept by its hash.

Why: a scorer that is replaced reads its models again, and by then the file that a folder of YAML named may have been
overwritten; what is loaded is what was accepted. Model files are links to the asset storage's content, so that they
lie on the disk once; external data is copied.
Ownership: a folder stays for as long as what is served names it. Everything here blocks: call it on a thread.
Errors: a file that cannot be read or kept is served from where it lies (the loader says what is wrong with it, a
warning what is wrong with keeping it); ModelChanged when it changes while it is kept.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import shutil
import tempfile
import threading
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from gateway.errors import Problem
from gateway.resources import AssetModel, LocalModel
from runtimes import LoadFailed, model_files

log = logging.getLogger(__name__)

# Files that say something of a model are short.
READ_BYTES_MAX = 1024 * 1024


class ModelChanged(Exception):
    """The model changed while it was copied."""


class Contents(Protocol):
    """Files kept by the SHA-256 of their content."""

    def path_of(self, sha256: str) -> Path:
        """Where the content of this hash lies, or would lie."""
        ...

    def hold(self, sha256: str) -> bool:
        """Keep content from being collected for a while; whether it is there."""
        ...

    def add_file(self, source: Path) -> tuple[str, int]:
        """Keep a copy of a file; its hash and bytes. Errors: OSError, Problem where there is no room."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredModel:
    """A model file to load, what it is a copy of, and its SHA-256 ("" where it cannot be read)."""

    path: Path
    origin: str
    sha256: str


class ModelStore:
    """One folder of models; without a folder, local files are served from where they lie."""

    def __init__(self, contents: Contents, folder: Path, *, copies: bool = True, links: bool = True) -> None:
        self._contents = contents
        self._folder = folder
        self._copies = copies
        # Without links whoever reads a folder may write in it, and harms nobody else.
        self._links = links
        # Between folders that are made and others that are removed; held for as long as that takes.
        self._lock = threading.Lock()
        self._counting = threading.Lock()
        # Folders that were found whole since the process started.
        self._whole: set[Path] = set()
        # Folders of what is loaded and not served yet, and for how many loads.
        self._held: Counter[Path] = Counter()

    def register(self, model: LocalModel) -> AssetModel:
        """A local file as an asset by its content, kept where it can be. Errors: ModelChanged."""
        origin = model.path
        try:
            paths = (origin, *model_files(origin))
        except (OSError, ValueError, LoadFailed):
            # The loader finds the same and says it of the deployment.
            paths = (origin,)
        files = []
        for path in paths:
            found = _look(path)
            if found is not None:
                files.append((path.relative_to(origin.parent).as_posix(), *found))
        asset = AssetModel(
            reference=f"azureml:{_digest(files)[:32]}:1", files=tuple(files), entry=origin.name, origin=str(origin)
        )
        self.keep({digest: origin.parent / path for path, digest, _ in files})
        return asset

    def keep(self, sources: Mapping[str, Path]) -> None:
        """Keep copies of files by their SHA-256. Errors: ModelChanged."""
        if not self._copies:
            return
        for digest, path in sources.items():
            self._keep_one(digest, path)

    def has_content(self, sha256: str, size_bytes: int) -> bool:
        """Whether this content is kept, and will be for a while."""
        try:
            return self._contents.path_of(sha256).stat().st_size == size_bytes and self._contents.hold(sha256)
        except OSError:
            return False

    def read(self, sha256: str) -> bytes | None:
        """The beginning of kept content; None where it cannot be read."""
        try:
            with self._contents.path_of(sha256).open("rb") as file:
                return file.read(READ_BYTES_MAX)
        except OSError:
            return None

    def hold(self, model: AssetModel) -> None:
        """Its folder stays until `let_go`, whatever is served. Waits for nobody."""
        with self._counting:
            self._held[self._folder_of(model)] += 1

    def let_go(self, model: AssetModel) -> None:
        with self._counting:
            self._held[self._folder_of(model)] -= 1

    def take(self, model: AssetModel) -> StoredModel:
        """The model as a file that can be loaded."""
        with self._lock:
            return self._take(model)

    def _take(self, model: AssetModel) -> StoredModel:
        sha256 = next((digest for path, digest, _ in model.files if path == model.entry), "")
        folder = self._folder_of(model)
        # Whoever reads of a model that does not load knows its file, not the hash that it is registered under.
        origin = model.origin or f"{model.entry} of {model.reference}"
        stored = StoredModel(path=folder / model.entry, origin=origin, sha256=sha256)
        if folder in self._whole:
            return stored
        try:
            if not self._holds(folder, model):
                self._link(model, folder)
        except OSError as error:
            if not model.origin:
                log.error("%s cannot be read: %s", model.reference, error)
                return stored
            if self._copies:
                log.warning("%s is served from where it lies, and must stay as it is: %s", model.origin, error)
            return StoredModel(path=Path(model.origin), origin=model.origin, sha256=sha256)
        self._whole.add(folder)
        return stored

    def keep_only(self, paths: Collection[Path]) -> None:
        """Remove every folder that holds none of these files and is not held, and what was left unfinished."""
        with self._lock:
            with self._counting:
                self._held = +self._held
                held = set(self._held)
            kept = {self._folder / path.relative_to(self._folder).parts[0] for path in paths if self._owns(path)}
            kept |= held
            self._whole &= kept
            if self._folder.is_dir():
                for folder in self._folder.iterdir():
                    if folder not in kept:
                        shutil.rmtree(folder, ignore_errors=True)

    def _folder_of(self, model: AssetModel) -> Path:
        return self._folder / _digest(model.files)

    def _owns(self, path: Path) -> bool:
        return path.is_relative_to(self._folder)

    def _keep_one(self, digest: str, path: Path) -> None:
        try:
            if not self._contents.hold(digest) and self._contents.add_file(path)[0] != digest:
                raise ModelChanged(f"the file {path} changed while it was read; try it again")
        except (OSError, Problem) as error:
            log.warning("%s is not copied: %s", path, error)

    def _holds(self, folder: Path, model: AssetModel) -> bool:
        """Whether the files are there and whole: links are not flushed to the disk."""
        try:
            return all(_sha256(folder / path) == digest for path, digest, _ in model.files)
        except OSError:
            return False

    def _link(self, model: AssetModel, folder: Path) -> None:
        self._folder.mkdir(mode=0o700, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix="unfinished-", dir=self._folder))
        try:
            for path, digest, _ in model.files:
                file = unfinished / path
                file.parent.mkdir(parents=True, exist_ok=True)
                # External data with a second name is refused by the loader: it may be anybody's file.
                place = _link_or_copy if path == model.entry and self._links else shutil.copyfile
                place(self._contents.path_of(digest), file)
                if _sha256(file) != digest:
                    raise OSError(f"its content {digest} is damaged")
            shutil.rmtree(folder, ignore_errors=True)
            unfinished.rename(folder)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)


def _link_or_copy(source: Path, target: Path) -> None:
    with contextlib.suppress(OSError):
        # Some file systems have no links, or none between these folders.
        os.link(source, target)
        return
    shutil.copyfile(source, target)


def _digest(files: Collection[tuple[str, str, int]]) -> str:
    """Of names and contents: a model finds its external data by name."""
    return hashlib.sha256("".join(f"{digest} {path}\n" for path, digest, _ in files).encode()).hexdigest()


def _look(path: Path) -> tuple[str, int] | None:
    """Hash and bytes; None for what cannot be read."""
    try:
        return _sha256(path), path.stat().st_size
    except OSError:
        return None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
