"""What the paths in a folder's documents lead to: files become content by its hash, inline assets become references.

Why: a stored document must not depend on a disk. After `resolve`, a model, code folder or environment that a
deployment had inline is an asset of its own, named by its content, so the deployment's document changes exactly when
the content does; a `conda_file` is its text.
What of a path: a deployment's model is the .onnx file with its external data, unless a script or mlflow serves it;
everything else (a Triton repository too) is the file, or all files below the folder except hidden ones and
`__pycache__`. Links must stay inside.
With a `root` every path must lie below it: that is for a folder that is sent to another machine, and an asset's path
becomes the address of its upload. Without one it becomes `file://` and the absolute path. Blocks: it reads every file
once for its SHA-256.
Errors: mistakes of the documents, at the key that names the path.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from gateway.controlplane.apply import Wanted
from gateway.controlplane.arm.ids import is_asset_reference
from gateway.controlplane.assets import DATASTORE, LOCAL, folder_of
from gateway.controlplane.documents import normal_form, to_builtins
from gateway.controlplane.folder import Folder, FolderDocument
from gateway.controlplane.model_files import ModelFileError, model_of
from gateway.controlplane.store.records import ASSETS, AssetFile, Kind
from gateway.controlplane.triton.served import of_folder
from gateway.controlplane.yaml_types import (
    BatchDeploymentYaml,
    BuildYaml,
    CodeAssetYaml,
    CodeYaml,
    DataYaml,
    EnvironmentYaml,
    ModelYaml,
    OnlineDeploymentYaml,
    OnlineEndpointYaml,
    SecretYaml,
)
from gateway.resources import LocalModel
from gateway.yaml_text import TEXT_BYTES_MAX
from runtimes import LoadFailed, model_files

FILES_MAX = 10_000
ANONYMOUS_ENVIRONMENT = "CliV2AnonymousEnvironment"
UPLOADS = "LocalUpload"

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")


class _Unusable(Exception):
    """A path does not lead to content; the text says why, without the key."""


@dataclass(slots=True, kw_only=True)
class Resolved:
    """What a folder wants, and where the content lies: the file of each SHA-256."""

    wanted: list[Wanted] = field(default_factory=list)
    sources: dict[str, Path] = field(default_factory=dict)


def resolve(folder: Folder, root: Path | None = None) -> Resolved:
    """The folder's documents with their content. What cannot be found is among the folder's problems afterwards."""
    resolving = _Resolving(root)
    for source in folder.documents:
        # Without its required keys there is nothing to look at; its mistakes say so.
        if source.document is not None:
            resolving.document(source, source.document)
    return resolving.result


def content_name(files: Sequence[AssetFile], folder: str = "", model_type: str = "custom_model") -> str:
    """The name of an asset that has none, of names and contents: a model finds its external data by name, a script
    its model by the name of its folder. The same folder as a model of another type is another asset."""
    above = f"{folder}/" if folder else ""
    lines = "".join(f"{one.sha256} {above}{one.path}\n" for one in files)
    if model_type != "custom_model":
        lines += f"{model_type}\n"
    return hashlib.sha256(lines.encode()).hexdigest()[:32]


class _Resolving:
    def __init__(self, root: Path | None) -> None:
        self.result = Resolved()
        self._root = root.resolve() if root is not None else None

    def document(self, source: FolderDocument, document: msgspec.Struct) -> None:
        place, kind = source.place, source.kind
        assert kind is not None
        files: Sequence[AssetFile] = ()
        document, blames = normal_form(document)
        for one in blames:
            place.blame(one.path, one.text)
        if kind in ASSETS and not source.text("name"):
            place.blame("name", "missing; accepted: text")
        match document:
            case OnlineEndpointYaml():
                document = _with_key_files(document, source)
            case OnlineDeploymentYaml() | BatchDeploymentYaml():
                document = self._deployment(document, source)
            case ModelYaml() | CodeAssetYaml() | DataYaml():
                document, files = self._asset(document, source)
            case EnvironmentYaml():
                document, files = self._environment(document, source, "")
        self._want(kind, document, files, place.label)

    def _want(self, kind: Kind, document: Any, files: Sequence[AssetFile], label: str) -> None:
        wanted = Wanted.of(kind, document, files=tuple(sorted(files, key=lambda one: one.path)), label=label)
        is_known = any((one.ref, one.files) == (wanted.ref, wanted.files) for one in self.result.wanted)
        if not (getattr(document, "is_anonymous", False) and is_known):
            self.result.wanted.append(wanted)

    # ---- what deployments have inline

    def _deployment(
        self, document: OnlineDeploymentYaml | BatchDeploymentYaml, source: FolderDocument
    ) -> OnlineDeploymentYaml | BatchDeploymentYaml:
        environment = document.environment
        if isinstance(environment, EnvironmentYaml):
            environment = self._inline_environment(environment, source)
        return msgspec.structs.replace(
            document,
            model=self._inline_model(document, source),
            code_configuration=self._inline_code(document.code_configuration, source),
            environment=environment,
        )

    def _inline_model(self, document: OnlineDeploymentYaml | BatchDeploymentYaml, source: FolderDocument) -> Any:
        given = document.model
        if given is None or (isinstance(given, str) and is_asset_reference(given)):
            return given
        inline = given if isinstance(given, ModelYaml) else ModelYaml(path=given)
        key, folder = "model" if isinstance(given, str) else "model.path", ""
        try:
            is_native = isinstance(document, OnlineDeploymentYaml) and document.code_configuration is None
            if is_native and inline.type == "custom_model":
                files, address = self._onnx(given, source.place.file.parent)
            else:
                if isinstance(document, OnlineDeploymentYaml) and is_native and inline.type == "triton_model":
                    # For its mistakes, which another machine would find only when it has been sent.
                    of_folder(source.place.file.parent.absolute() / inline.path, document.gateway.runtime.model)
                files, address = self._below(inline.path, source)
                folder = folder_of(address, files)
        except ModelFileError as error:
            source.place.blame(error.key, error.text)
            return given
        except _Unusable as error:
            source.place.blame(key, str(error))
            return given
        if not files:
            source.place.blame(key, f"found {inline.path!r}, from which nothing is fetched; accepted: a local path")
            return given
        for name in ("description", "tags", "properties", "stage"):
            if getattr(inline, name):
                source.place.note(f"model.{name}", "is not kept; give the model a document of its own, and its name")
        name = content_name(files, folder, inline.type)
        model = ModelYaml(name=name, version="1", type=inline.type, path=address, is_anonymous=True)
        self._want(Kind.MODEL, model, files, source.place.label)
        return f"azureml:{name}:1"

    def _inline_code(self, given: CodeYaml | None, source: FolderDocument) -> CodeYaml | None:
        if given is None or not given.code or is_asset_reference(given.code):
            return given
        files, address = self._named(given.code, "code_configuration.code", source)
        if not files:
            return given
        name = content_name(files)
        code = CodeAssetYaml(name=name, version="1", path=address, is_anonymous=True)
        self._want(Kind.CODE, code, files, source.place.label)
        return msgspec.structs.replace(given, code=f"azureml:{name}:1")

    def _inline_environment(self, given: EnvironmentYaml, source: FolderDocument) -> str:
        document, files = self._environment(given, source, "environment.")
        bare = msgspec.structs.replace(document, schema_="", name=ANONYMOUS_ENVIRONMENT, version="")
        said = msgspec.json.encode(to_builtins(bare), order="sorted") + content_name(files).encode()
        version = hashlib.sha256(said).hexdigest()[:32]
        whole = msgspec.structs.replace(bare, version=version, is_anonymous=True)
        self._want(Kind.ENVIRONMENT, whole, files, source.place.label)
        return f"azureml:{ANONYMOUS_ENVIRONMENT}:{version}"

    # ---- assets

    def _asset(
        self, document: ModelYaml | CodeAssetYaml | DataYaml, source: FolderDocument
    ) -> tuple[msgspec.Struct, Sequence[AssetFile]]:
        files, address = self._named(document.path, "path", source)
        return msgspec.structs.replace(document, path=address), files

    def _environment(
        self, document: EnvironmentYaml, source: FolderDocument, inside: str
    ) -> tuple[EnvironmentYaml, Sequence[AssetFile]]:
        conda, build = document.conda_file, document.build
        if isinstance(conda, str) and "\n" not in conda:
            try:
                conda = self._text(conda, source)
            except _Unusable as error:
                source.place.blame(f"{inside}conda_file", str(error))
        files: Sequence[AssetFile] = ()
        if isinstance(build, BuildYaml) and build.path:
            files, address = self._named(build.path, f"{inside}build.path", source)
            build = msgspec.structs.replace(build, path=address)
        return msgspec.structs.replace(document, conda_file=conda, build=build), files

    # ---- paths

    def _named(self, text: str, key: str, source: FolderDocument) -> tuple[Sequence[AssetFile], str]:
        """The files of a path, and the address that is stored; an address stays as it is."""
        try:
            return self._below(text, source)
        except _Unusable as error:
            source.place.blame(key, str(error))
            return (), text

    def _below(self, text: str, source: FolderDocument) -> tuple[Sequence[AssetFile], str]:
        path = _joined(source.place.file.parent, text)
        try:
            if not path.exists():
                if _ADDRESS.match(text):
                    return (), text
                raise _Unusable(f"there is no file {path}; accepted: a file or folder, relative to the YAML file")
            if not path.is_dir():
                files = [self._file(_inside(path, self._root, text), path.name)]
            else:
                real = _inside(path, self._root, text)
                files = [self._file(one, one.relative_to(real).as_posix()) for one in sorted(_walk(real))]
        except OSError as error:
            raise _Unusable(f"cannot read {error.filename or path}: {error.strerror}") from error
        if not files:
            raise _Unusable(f"{path} holds no file; accepted: a folder with at least one file")
        return files, self._address(path, files)

    def _onnx(self, given: str | ModelYaml, folder: Path) -> tuple[Sequence[AssetFile], str]:
        """A model's file first, then its external data; and the address."""
        model = model_of(given, folder)
        assert isinstance(model, LocalModel)
        text = given if isinstance(given, str) else given.path
        _inside(model.path, self._root, text)
        try:
            paths = (model.path, *model_files(model.path))
        except (OSError, ValueError, LoadFailed):
            # The loader finds the same and says it of the deployment.
            paths = (model.path,)
        try:
            files = [self._file(path, path.name) for path in paths]
        except OSError as error:
            raise _Unusable(f"cannot read {error.filename or model.path}: {error.strerror}") from error
        return files, self._address(model.path, files)

    def _address(self, path: Path, files: Sequence[AssetFile]) -> str:
        if self._root is None:
            return f"{LOCAL}{os.path.normpath(path.absolute())}"
        # Of a model with external data no file stands for the whole.
        has_name = len(files) == 1 or path.is_dir()
        name = f"/{Path(os.path.normpath(path)).name}" if has_name else ""
        return f"azureml://datastores/{DATASTORE}/paths/{UPLOADS}/{content_name(files)}{name}"

    def _file(self, path: Path, name: str) -> AssetFile:
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            size = file.seek(0, os.SEEK_END)
        self.result.sources[sha256] = path
        return AssetFile(path=name, sha256=sha256, size_bytes=size)

    def _text(self, text: str, source: FolderDocument) -> str:
        path = _joined(source.place.file.parent, text)
        try:
            with _inside(path, self._root, text).open("rb") as file:
                data = file.read(TEXT_BYTES_MAX + 1)
            if len(data) > TEXT_BYTES_MAX:
                raise _Unusable(f"{path} has more than {TEXT_BYTES_MAX} bytes; accepted: a conda file")
            return data.decode("utf-8-sig")
        except OSError as error:
            raise _Unusable(f"cannot read {path}: {error.strerror}; accepted: a conda file") from error
        except UnicodeDecodeError:
            raise _Unusable(f"{path} is not UTF-8; accepted: a conda file") from None


def _joined(folder: Path, text: str) -> Path:
    if not text.strip() or "\0" in text:
        raise _Unusable(f"found {text!r}; accepted: a file or folder, relative to the YAML file")
    return folder.absolute() / text


def _inside(path: Path, root: Path | None, text: str) -> Path:
    """Where the path really leads. With a root, only below it."""
    real = path.resolve()
    if root is not None and not real.is_relative_to(root):
        raise _Unusable(f"{text!r} leads to {real}, out of the folder {root}; accepted: a path that stays below it")
    return real


def _walk(folder: Path) -> Iterator[Path]:
    """All files below, without links that lead out of the folder."""
    count = 0
    for place, names, files in os.walk(folder):
        names[:] = [name for name in names if not name.startswith(".") and name != "__pycache__"]
        for name in files:
            path = Path(place, name)
            if name.startswith(".") or not path.is_file():
                continue
            _inside(path, folder, path.relative_to(folder).as_posix())
            count += 1
            if count > FILES_MAX:
                raise _Unusable(f"{folder} holds more than {FILES_MAX} files; accepted: at most that")
            yield path


def _with_key_files(document: OnlineEndpointYaml, source: FolderDocument) -> OnlineEndpointYaml:
    """Files that hold keys by their absolute paths: the stored document is read without its folder."""

    def absolute(secret: SecretYaml | None) -> SecretYaml | None:
        if secret is None or not secret.file:
            return secret
        return SecretYaml(file=str(source.place.file.parent.absolute() / secret.file))

    keys = document.gateway.keys
    keys = msgspec.structs.replace(keys, primary=absolute(keys.primary), secondary=absolute(keys.secondary))
    return msgspec.structs.replace(document, gateway=msgspec.structs.replace(document.gateway, keys=keys))
