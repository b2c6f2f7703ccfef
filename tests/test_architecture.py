"""The walls of the house: who may import whom, which file names which foreign thing, what every module says first."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted([*ROOT.glob("runtimes/**/*.py"), *ROOT.glob("gateway/**/*.py")])

# A module of the left may not import from the right, at any depth.
WALLS = {
    "runtimes": ("gateway", "bench", "starlette", "uvicorn", "prometheus_client", "msgspec", "orjson", "httpx"),
    "gateway.dataplane": (
        "gateway.controlplane",
        "gateway.supervisor",
        "gateway.fleet",
        "gateway.cli",
        "gateway.scorer",
    ),
    "gateway.controlplane": (
        "gateway.dataplane",
        "gateway.scorer",
        "gateway.supervisor",
        "gateway.fleet",
        "gateway.cli",
    ),
    "gateway.controlplane.store": (
        "gateway.controlplane.rest",
        "gateway.controlplane.arm",
        "gateway.controlplane.blobs",
        "gateway.controlplane.control",
        "gateway.controlplane.book",
        "gateway.controlplane.yaml_types",
    ),
    "gateway.controlplane.arm": ("gateway.controlplane.rest", "gateway.controlplane.control"),
    "gateway.controlplane.control": ("gateway.controlplane.rest", "gateway.controlplane.blobs"),
    "gateway.controlplane.book": ("gateway.controlplane.rest", "gateway.controlplane.blobs"),
    "gateway.collection": (
        *("gateway.dataplane", "gateway.controlplane", "gateway.supervisor", "gateway.scorer", "gateway.fleet"),
        *("gateway.cli", "gateway.channel", "gateway.snapshot", "gateway.settings"),
    ),
    "gateway.telemetry": ("gateway.dataplane", "gateway.controlplane", "gateway.supervisor", "gateway.scorer"),
    "gateway.scorer": ("gateway.controlplane", "gateway.supervisor", "gateway.fleet", "gateway.cli"),
    "gateway.supervisor": ("gateway.dataplane", "gateway.scorer", "gateway.cli", "onnxruntime"),
    "gateway.snapshot": ("gateway.dataplane", "gateway.controlplane", "gateway.channel", "gateway.settings"),
    "gateway.resources": ("gateway.snapshot", "gateway.channel", "gateway.settings", "gateway.errors"),
    "gateway.errors": ("gateway.",),
    "gateway.oidc": ("gateway.dataplane", "gateway.controlplane", "gateway.settings"),
    "gateway.jwks": ("gateway.dataplane", "gateway.controlplane", "gateway.settings"),
    "gateway.listener": ("gateway.dataplane", "gateway.controlplane", "gateway.settings", "runtimes.runtime"),
}

# A foreign thing has one house: only modules with these prefixes may import it.
HOUSES = {
    "sqlalchemy": ("gateway.controlplane.store",),
    "alembic": ("gateway.controlplane.store",),
    "sqlite3": ("gateway.controlplane.store.sqlite",),
    "onnxruntime": ("runtimes.onnx",),
    "uvicorn": ("gateway.listener",),
    "httptools": ("gateway.listener",),
    "prometheus_client": ("gateway.telemetry.metrics", "gateway.telemetry.triton"),
    "yaml": ("gateway.yaml_text",),
    "click": ("gateway.cli",),
    "httpx": ("gateway.jwks", "gateway.oidc", "gateway.cli.remote"),
    "jwt": ("gateway.credentials", "gateway.oidc", "gateway.jwks"),
    "cryptography.hazmat.primitives.ciphers": ("gateway.controlplane.keyring",),
    "watchfiles": ("gateway.supervisor",),
    "simdjson": ("gateway.dataplane.codecs.buffers",),
    "pynvml": ("gateway.telemetry.gpu",),
    "mmap": (
        *("gateway.seats", "runtimes.onnx.external"),
        *("runtimes.script.worker_lib.igw_worker.wire", "runtimes.script.worker_lib.igw_worker.state"),
    ),
}

# Only these may look behind the front door of `runtimes`.
BEHIND_THE_DOOR = {
    "gateway.dataplane.load": {"runtimes.loader", "runtimes.runtime"},
    "gateway.dataplane.live": {"runtimes.runtime"},
}

PURE = (
    "runtimes.batching.policy",
    "runtimes.batching.collate",
    "runtimes.batching.queue",
    "runtimes.batching.fit",
    "runtimes.script.line",
    "runtimes.signature",
    "runtimes.declared",
    "runtimes.lifecycle",
    "gateway.collection.records",
    "gateway.collection.spec",
    "gateway.dataplane.route",
    "gateway.dataplane.paths",
    "gateway.controlplane.rules",
    "gateway.controlplane.plan",
    "gateway.controlplane.script_batching",
    "gateway.controlplane.autoscale",
    "gateway.controlplane.apply",
    "gateway.controlplane.documents",
    "gateway.controlplane.matching",
    "gateway.controlplane.triton.text_format",
    "gateway.controlplane.triton.typed",
    "gateway.controlplane.triton.model_config",
    "gateway.controlplane.triton.meaning",
    "gateway.controlplane.triton.tensors",
    "gateway.controlplane.triton.hardware",
    "gateway.controlplane.triton.said",
    "gateway.controlplane.triton.repository",
    "gateway.controlplane.arm.ids",
    "gateway.controlplane.arm.bodies",
    "gateway.controlplane.arm.online",
    "gateway.controlplane.arm.batch",
    "gateway.controlplane.arm.assets",
    "gateway.controlplane.arm.durations",
    "gateway.controlplane.rollout.document",
    "gateway.controlplane.rollout.state",
    "gateway.controlplane.rollout.decide",
    "gateway.controlplane.rollout.observe",
)
IMPURE = ("asyncio", "threading", "time", "random", "logging", "os", "socket")


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports_of(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module, node.lineno


def is_under(module: str, prefix: str) -> bool:
    return module == prefix or module.startswith(prefix.rstrip(".") + ".")


@pytest.mark.parametrize("path", SOURCES, ids=module_of)
def test_a_module_imports_only_downwards(path: Path) -> None:
    module = module_of(path)
    for prefix, forbidden in WALLS.items():
        if not is_under(module, prefix):
            continue
        for name, line in imports_of(path):
            offends = [wall for wall in forbidden if is_under(name, wall)]
            assert not offends, f"{path.relative_to(ROOT)}:{line} imports {name}; {prefix} may not"


@pytest.mark.parametrize("path", SOURCES, ids=module_of)
def test_a_foreign_thing_has_one_house(path: Path) -> None:
    module = module_of(path)
    for name, line in imports_of(path):
        for foreign, houses in HOUSES.items():
            if is_under(name, foreign):
                at_home = any(is_under(module, house) for house in houses)
                assert at_home, f"{path.relative_to(ROOT)}:{line} imports {name}; only {houses} may"


@pytest.mark.parametrize("path", [path for path in SOURCES if "gateway" in path.parts], ids=module_of)
def test_the_gateway_enters_runtimes_by_the_front_door(path: Path) -> None:
    allowed = BEHIND_THE_DOOR.get(module_of(path), set()) | {"runtimes"}
    for name, line in imports_of(path):
        if is_under(name, "runtimes"):
            assert name in allowed, f"{path.relative_to(ROOT)}:{line} imports {name}; import it from runtimes"


@pytest.mark.parametrize("module", PURE)
def test_a_pure_module_has_no_clock_no_chance_and_no_loop(module: str) -> None:
    path = ROOT / (module.replace(".", "/") + ".py")
    for name, line in imports_of(path):
        assert name.split(".")[0] not in IMPURE, (
            f"{path.relative_to(ROOT)}:{line} imports {name}; it is a pure module"
        )


@pytest.mark.parametrize("path", SOURCES, ids=module_of)
def test_a_module_says_first_what_it_is_for(path: Path) -> None:
    text = path.read_text()
    if text.strip():
        assert ast.get_docstring(ast.parse(text)), f"{path.relative_to(ROOT)} has no module docstring"


@pytest.mark.parametrize("path", SOURCES, ids=module_of)
def test_no_module_keeps_mutable_state(path: Path) -> None:
    for node in ast.parse(path.read_text()).body:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        names = [target.id for target in targets if isinstance(target, ast.Name)]
        value = getattr(node, "value", None)
        empty = isinstance(value, ast.Dict | ast.List | ast.Set) and not ast.unparse(value).strip("{}[] ")
        assert not (names and empty), (
            f"{path.relative_to(ROOT)}:{node.lineno} {names[0]} starts empty: it is filled later"
        )


def test_secrets_are_never_compared_with_equals() -> None:
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Compare) and any(isinstance(op, ast.Eq | ast.NotEq) for op in node.ops):
                text = ast.unparse(node).lower()
                words = ("primary_key", "secondary_key", "keys.primary", "keys.secondary", "access_token")
                secret = any(word in text for word in (*words, "management_token", "master_key", "credential"))
                assert not secret, f"{path.relative_to(ROOT)}:{node.lineno} compares a secret: {ast.unparse(node)}"
