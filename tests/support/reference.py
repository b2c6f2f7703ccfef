"""The pages that are made from code, whole or in part: `python -m tests.support.reference` writes them.

Why: a table that is typed by hand drifts from what it describes; a test compares the committed files with these.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from msgspec import inspect

from gateway.controlplane.decode import accepted, bare, default_of, description_of, struct_type
from gateway.controlplane.rest.openapi import management_openapi
from gateway.controlplane.yaml_types import (
    BatchDeploymentYaml,
    BatchEndpointYaml,
    CodeAssetYaml,
    DataYaml,
    EnvironmentYaml,
    ModelYaml,
    OnlineDeploymentYaml,
    OnlineEndpointYaml,
)
from gateway.dataplane.openapi import scoring_openapi
from gateway.settings import FLAG, Settings, settings_about, shown
from gateway.telemetry.metrics import reference as metrics_page
from tests.support import azure_samples

ROOT = Path(__file__).parents[2]

_MAP_TITLE = "## Module map"
_MADE = "<!-- Made by `python -m tests.support.reference`; edit the types, not this file. -->"

_YAML_HEAD = f"""# YAML

{_MADE}

`gateway serve --apply DIR` reads `*.yml` and `*.yaml` (any case) in the folder and one level down, in order of name;
hidden files and folders and conda files are left out. A file is UTF-8, has at most 1 MB and may hold several
documents. What a document is, its `$schema` or else its keys say: an endpoint or a deployment, online or batch, or a
registered model, environment, code or data. [Azure's samples](../azure-yaml.md) shows what becomes of usual files.
`gateway check DIR` tells all problems of a folder at once.

* Unknown and repeated keys are errors. An empty value means "not given".
* Numbers and truth values may be quoted. Choices are matched whatever their case: `aml_token`, `AMLToken`.
* Relative paths are relative to the YAML file. `${{{{...}}}}` is not interpreted.
* Names of endpoints and deployments are compared whatever their case.
* "Accepted, not enforced here" keys give a note in the log and in `gateway check` when they are set to something.
"""

_SETTINGS_HEAD = f"""# Settings

{_MADE}

Each setting is a key of the settings file (`--config FILE` or `GATEWAY_CONFIG`, YAML), an environment variable and a
flag of `gateway serve`; later ones win: default < file < environment < flag. `gateway settings` prints every value
and where it came from. Unknown keys and variables that begin with `GATEWAY_` are errors (those that Kubernetes
sets for a Service called `gateway` are left out); an empty variable counts as not set. Relative paths are relative
to the working folder, in the settings file to the file. No setting is a secret itself: keys are files.

| setting | variable | flag | takes | default | a new value counts after |
|---|---|---|---|---|---|
"""


def settings_page() -> str:
    """docs/reference/settings.md"""
    defaults = Settings()
    rows, words = [], []
    for name, about in settings_about().items():
        flag = name.replace("_", "-")
        flags = f"`--{flag}`, `--no-{flag}`" if about.parser is FLAG else f"`--{flag}`"
        default = shown(getattr(defaults, name))
        said = f"`{default}`" if default else "none"
        takes = about.parser.accepts
        rows.append(f"| {name} | `GATEWAY_{name.upper()}` | {flags} | {takes} | {said} | {about.applies} |")
        words.append(f"* **{name}**: {about.what}")
    return _SETTINGS_HEAD + "\n".join(rows) + "\n\n## What they mean\n\n" + "\n".join(words) + "\n"


_DOCUMENTS: tuple[tuple[str, type[msgspec.Struct]], ...] = (
    ("Online endpoint", OnlineEndpointYaml),
    ("Online deployment", OnlineDeploymentYaml),
    ("Batch endpoint", BatchEndpointYaml),
    ("Batch deployment", BatchDeploymentYaml),
    ("Model", ModelYaml),
    ("Environment", EnvironmentYaml),
    ("Code", CodeAssetYaml),
    ("Data", DataYaml),
)


def yaml_page() -> str:
    """docs/reference/yaml.md"""
    parts = [_YAML_HEAD]
    for title, cls in _DOCUMENTS:
        rows = "\n".join(_rows(struct_type(cls), ""))
        parts.append(f"## {title}\n\n| key | takes | default | meaning |\n|---|---|---|---|\n{rows}\n")
    return "\n".join(parts)


def _rows(kind: inspect.StructType, path: str) -> Iterator[str]:
    for field in kind.fields:
        name = f"{path}{field.encode_name}"
        nested = _structs(field.type)
        takes = "a mapping" if isinstance(bare(field.type), inspect.StructType) else accepted(field.type)
        if nested and not isinstance(bare(field.type), inspect.StructType):
            takes = "text or a mapping" if isinstance(bare(field.type), inspect.UnionType) else takes.split(" (")[0]
        yield f"| `{name}` | {takes} | {_default(field)} | {description_of(field)} |"
        for one, suffix in nested:
            yield from _rows(one, f"{name}{suffix}.")


def _structs(kind: inspect.Type) -> list[tuple[inspect.StructType, str]]:
    kind = bare(kind)
    match kind:
        case inspect.StructType():
            return [(kind, "")]
        case inspect.UnionType():
            return [found for one in kind.types for found in _structs(one)]
        case inspect.VarTupleType():
            return [(found, "[]") for found, _ in _structs(kind.item_type)]
        case inspect.DictType():
            return [(found, ".*") for found, _ in _structs(kind.value_type)]
        case _:
            return []


def _default(field: inspect.Field) -> str:
    if field.required:
        return "required"
    value = default_of(field)
    if isinstance(value, tuple) and value:
        return ", ".join(f"`{one}`" for one in value)
    if isinstance(value, msgspec.Struct) or value in (None, "", (), {}):
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def architecture_page() -> str:
    """ARCHITECTURE.md with its module map made anew: every module, with the first line it says of itself."""
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    head, _, rest = text.partition(_MAP_TITLE)
    _, _, tail = rest.partition("\n## ")
    rows = [f"| `{path}` | {says} |" for path, says in _modules()]
    return (
        f"{head}{_MAP_TITLE}\n\n" + "\n".join(["| module | what it is for |", "|---|---|", *rows]) + f"\n\n## {tail}"
    )


def _modules() -> Iterator[tuple[str, str]]:
    for package in ("runtimes", "gateway"):
        for path in sorted((ROOT / package).glob("**/*.py")):
            text = path.read_text(encoding="utf-8")
            if text.strip():
                says = ast.get_docstring(ast.parse(text)) or ""
                yield str(path.relative_to(ROOT)), says.partition("\n")[0]


def _json(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def pages() -> dict[str, str]:
    """Every page by its path from the root."""
    return {
        "ARCHITECTURE.md": architecture_page(),
        "docs/azure-yaml.md": azure_samples.page(),
        "docs/reference/metrics.md": metrics_page(),
        "docs/reference/management-openapi.json": _json(management_openapi()),
        "docs/reference/scoring-openapi.json": _json(scoring_openapi()),
        "docs/reference/settings.md": settings_page(),
        "docs/reference/yaml.md": yaml_page(),
    }


if __name__ == "__main__":
    for name, page in pages().items():
        (ROOT / name).parent.mkdir(parents=True, exist_ok=True)
        (ROOT / name).write_text(page, encoding="utf-8")
