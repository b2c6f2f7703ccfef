"""The scoring script of a deployment: its code, its model and its environment, local or registered.

What: a local script is parsed, so that a mistake in it is told with its line before anything is changed; a registered
one was parsed when it was registered or fails when it is loaded. The model may be any file or folder.
Errors: mistakes added to the place they were found in; ModelFileError for what is not there.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from gateway.controlplane.arm.ids import IdError, asset_reference, is_asset_reference
from gateway.controlplane.documents import to_builtins
from gateway.controlplane.model_files import ModelFileError
from gateway.controlplane.place import Place
from gateway.controlplane.store.records import Kind
from gateway.controlplane.yaml_types import (
    BatchingYaml,
    DeploymentGatewayYaml,
    EnvironmentYaml,
    OnlineDeploymentYaml,
    ProbeYaml,
    RuntimeYaml,
)
from gateway.liveness import Probe
from gateway.resources import AssetTree, LocalTree, Script, ScriptEnvironment

_WITHOUT_EFFECT = {
    "readiness_probe": "has no effect: a worker is ready once its init() has ended, and busy or idle after that",
    "liveness_probe": "has no effect: one answer of a worker is enough",
}


# Of gateway.batching: what is about sharing runs, and what is about tensors.
_SHARING = ("enabled", "max_rows", "slo_ms", "queue_delay_ms")
_TENSORS = ("axes", "padding", "sizes")
_UNSHARED = "has no effect unless the scoring script defines run_batch()"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """A registered asset as a deployment needs it: its files, or, of an environment, what it says. `address`: where
    its document says that the content is. `type` is a model's; `read` gives the beginning of a file by its path, None
    where it cannot be read here."""

    reference: str
    address: str = ""
    files: tuple[tuple[str, str, int], ...] = ()
    folder: str = ""
    type: str = ""
    read: Callable[[str], bytes | None] = lambda _: None
    environment: ScriptEnvironment = field(default_factory=ScriptEnvironment)


Trees = Callable[[Kind, str], Tree]


def unresolved_tree(kind: Kind, reference: str) -> Tree:
    """An asset that cannot be looked up here."""
    return Tree(reference=reference, environment=ScriptEnvironment(reference=reference))


def script_of(source: OnlineDeploymentYaml, place: Place, trees: Trees) -> Script | None:
    """The scoring script; None where it is blamed. Errors: ModelFileError."""
    given = source.code_configuration
    assert given is not None
    if not given.scoring_script:
        place.blame("code_configuration.scoring_script", "missing; accepted: a file, relative to code")
        return None
    code = tree_of(given.code or ".", place, Kind.CODE, "code_configuration.code", trees)
    # Whether the script really has run_batch() is known once a worker has imported it; the status tells it then.
    unshared = "" if b"run_batch" in _checked_script(code, given.scoring_script, place) else _UNSHARED
    note_vain(source.gateway, place, "code_configuration", unshared)
    model: LocalTree | AssetTree | None = None
    if source.model is not None:
        key = "model" if isinstance(source.model, str) else "model.path"
        text = source.model if isinstance(source.model, str) else source.model.path
        model = tree_of(text, place, Kind.MODEL, key, trees)
    return Script(
        code=code,
        scoring_script=given.scoring_script,
        model=model,
        environment=environment_of(source.environment, trees),
        variables=dict(source.environment_variables),
        init_timeout_s=init_timeout_of(source),
        liveness=liveness_of(source, place),
    )


def init_timeout_of(source: OnlineDeploymentYaml) -> float:
    """Seconds that `init()` may take: whoever has a slow one raises one of the probes, or both."""
    given = [one for one in (source.readiness_probe, source.liveness_probe) if one is not None] or [ProbeYaml()]
    return max(one.initial_delay + one.period * one.failure_threshold for one in given)


def liveness_of(source: OnlineDeploymentYaml, place: Place) -> Probe:
    for key in ("readiness_probe.timeout", "readiness_probe.success_threshold", "liveness_probe.success_threshold"):
        name, _, field_name = key.partition(".")
        probe = getattr(source, name) or ProbeYaml()
        if getattr(probe, field_name) != getattr(ProbeYaml(), field_name):
            place.note(key, _WITHOUT_EFFECT[name])
    probe = source.liveness_probe or ProbeYaml()
    return Probe(
        initial_delay_s=probe.initial_delay,
        period_s=probe.period,
        timeout_s=probe.timeout,
        failure_threshold=probe.failure_threshold,
    )


def note_vain(given: DeploymentGatewayYaml, place: Place, what: str, unshared: str) -> None:
    """What only ONNX models have; `what` is served instead of one. `unshared`: why requests do not share a run; none
    where they may."""
    only_onnx, unset = f"has no effect with {what}; it is for ONNX models", BatchingYaml()
    if given.runtime != RuntimeYaml():
        place.note("gateway.runtime", only_onnx)
    for keys, why in ((_SHARING, unshared), (_TENSORS, only_onnx)):
        for key in keys:
            if why and getattr(given.batching, key) != getattr(unset, key):
                place.note(f"gateway.batching.{key}", why)


def tree_of(text: str, place: Place, kind: Kind, key: str, trees: Trees) -> LocalTree | AssetTree:
    """A registered asset's files, or a local file or folder. Errors: ModelFileError."""
    if is_asset_reference(text):
        try:
            found = trees(kind, asset_reference(text, kind))
        except IdError as error:
            raise ModelFileError(key, str(error)) from error
        assert found.reference is not None
        return AssetTree(reference=found.reference, files=found.files, folder=found.folder)
    path = place.file.parent.absolute() / text
    if not _exists(path):
        raise ModelFileError(key, f"there is no file {text!r}; accepted: a file or folder, relative to the YAML file")
    return LocalTree(path=path)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        # A name that no file can have, or a folder that may not be read.
        return False


def _checked_script(code: LocalTree | AssetTree, name: str, place: Place) -> bytes:
    """Whether the script is there, and Python; its text, none where it is not at hand."""
    key = "code_configuration.scoring_script"
    plain = PurePosixPath(name)
    if plain.is_absolute() or ".." in plain.parts:
        place.blame(key, f"found {name!r}; accepted: a file inside code")
        return b""
    if isinstance(code, AssetTree):
        if code.files and str(plain) not in {path for path, _, _ in code.files}:
            place.blame(
                key, f"the code has no file {name!r}; it has {', '.join(path for path, _, _ in code.files[:8])}"
            )
        return b""
    text = b""
    try:
        text = (code.path / name).read_bytes()
        with warnings.catch_warnings():
            # What the script's author is warned of is no mistake.
            warnings.simplefilter("ignore")
            compile(text, name, "exec", dont_inherit=True)
    except OSError as error:
        place.blame(key, f"cannot read {name!r} in {code.path}: {error.strerror}; accepted: a Python file")
    except (SyntaxError, ValueError) as error:
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        place.blame(key, f"{name}{line}: {error.msg if isinstance(error, SyntaxError) else error}")
    except (RecursionError, MemoryError):
        place.blame(key, f"{name}: it nests deeper than Python reads")
    return text


def environment_of(given: str | EnvironmentYaml | None, trees: Trees) -> ScriptEnvironment:
    """What a deployment's `environment` asks for."""
    if given is None:
        return ScriptEnvironment()
    if isinstance(given, EnvironmentYaml):
        return ScriptEnvironment(document=to_builtins(given))
    if not is_asset_reference(given):
        return ScriptEnvironment(reference=given)
    try:
        return trees(Kind.ENVIRONMENT, asset_reference(given, Kind.ENVIRONMENT)).environment
    except (IdError, ModelFileError):
        # Curated names are known by everybody and registered by nobody.
        return ScriptEnvironment(reference=given)
