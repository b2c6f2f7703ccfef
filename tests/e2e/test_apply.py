"""A folder applied to a gateway from elsewhere, as CI does it: by address, with a token and an authority in files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.control.management import deployment_path, endpoint_body, endpoint_path
from gateway.controlplane.certificates import ensure_certificates
from tests.support.managed import Elsewhere, Manager, killed, make_token
from tests.support.models import double, identity
from tests.support.process import GatewayProcess, deployment_yaml, endpoint_yaml, write_folder

BODY = {"input_data": [[1.0, 2.0, 3.0, 4.0]]}
SAME, DOUBLED = [[1.0, 2.0, 3.0, 4.0]], [[2.0, 4.0, 6.0, 8.0]]
ENDPOINT = endpoint_yaml(traffic={"blue": 100})
FOLDER: dict[str, str | bytes] = {
    "endpoint.yml": ENDPOINT,
    "blue.yml": deployment_yaml("blue", "same.onnx"),
    "green.yml": "name: green\nendpoint_name: digits\ninstance_type: cpu\nmodel: azureml:shared:3\n",
    "shared.yml": "name: shared\nversion: '3'\ntype: custom_model\npath: ./double.onnx\n",
    "same.onnx": identity(shape=("N", 4)),
    "double.onnx": double(),
}


class Ci:
    """Somebody with an operator's token and the folder `models`, and nothing else."""

    def __init__(self, gateway: GatewayProcess, place: Path) -> None:
        self.place = place
        self.folder = write_folder(place / "models", FOLDER)
        with Manager(gateway) as manager:
            self.elsewhere = Elsewhere(gateway, make_token(manager, f"ci-{place.name}", "operator"), place)

    def write(self, **files: str | bytes) -> None:
        """Keyword names are those of files of YAML."""
        write_folder(self.folder, {f"{name}.yml": text for name, text in files.items()})

    def says(self, *words: str, code: int = 0) -> tuple[list[str], list[str]]:
        """The lines on stdout and stderr of a command that ends so."""
        done = self.elsewhere.run(*words)
        assert done.returncode == code, done
        return done.stdout.splitlines(), done.stderr.splitlines()

    def apply(self, *more: str, code: int = 0) -> tuple[list[str], list[str]]:
        return self.says("apply", "-f", "models", *more, code=code)

    def diff(self, *more: str, code: int = 0) -> tuple[list[str], list[str]]:
        return self.says("diff", "-f", "models", *more, code=code)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """Nothing is served until it is applied."""
    with GatewayProcess(None, tmp_path_factory.mktemp("apply") / "state", scorers=1) as process:
        yield process


@pytest.fixture(scope="module")
def manager(gateway: GatewayProcess) -> Iterator[Manager]:
    with Manager(gateway) as found:
        yield found


@pytest.fixture
def ci(gateway: GatewayProcess, manager: Manager, tmp_path: Path) -> Iterator[Ci]:
    """On a gateway that holds nothing."""
    yield Ci(gateway, tmp_path)
    manager.clear()


@pytest.fixture
def applied(ci: Ci) -> Ci:
    """The folder is what is served."""
    ci.apply()
    return ci


def _answers(
    gateway: GatewayProcess, endpoint: str = "digits", names: tuple[str, ...] = ("blue", "green")
) -> list[Any]:
    """What each deployment answers, or the status."""
    with Manager(gateway) as manager, manager.scoring(endpoint) as client:
        replies = [
            client.post(f"/endpoints/{endpoint}/score", json=BODY, headers={"azureml-model-deployment": name})
            for name in names
        ]
    return [reply.json() if reply.status_code == 200 else reply.status_code for reply in replies]


def _etags(manager: Manager) -> list[str]:
    paths = [endpoint_path("digits"), *(deployment_path("digits", name) for name in ("blue", "green"))]
    return [manager.need("GET", path)["etag"] for path in paths]


# A folder is the truth.


def test_a_folder_is_uploaded_once_and_then_nothing_differs(
    gateway: GatewayProcess, manager: Manager, ci: Ci
) -> None:
    would, counted = ci.diff(code=1)
    assert would[0].endswith(" (same.onnx, 94 bytes)")
    assert would[1:] == [
        "+ model shared:3 (double.onnx, 92 bytes)",
        *("+ endpoint digits", "+ deployment digits/blue", "+ deployment digits/green"),
    ]
    assert counted == ["5 to create, 0 to change, 0 to delete, 0 unchanged"]
    assert gateway.status()["endpoints"] == {}

    did, said = ci.apply()
    assert did == would
    assert said == [
        *("uploading same.onnx (94 bytes)", "uploading double.onnx (92 bytes)"),
        "5 created, 0 changed, 0 deleted, 0 unchanged",
    ]
    assert _answers(gateway) == [SAME, DOUBLED]

    before, since = _etags(manager), len(gateway.stderr)
    assert ci.apply() == ([], ["0 created, 0 changed, 0 deleted, 5 unchanged"])
    assert ci.diff() == ([], ["0 to create, 0 to change, 0 to delete, 5 unchanged"])
    assert _etags(manager) == before
    assert "is loaded" not in "".join(gateway.stderr[since:])


def test_a_change_of_a_model_and_of_traffic_is_told_and_served(gateway: GatewayProcess, applied: Ci) -> None:
    write_folder(applied.folder, {"same.onnx": FOLDER["double.onnx"]})
    applied.write(endpoint=endpoint_yaml(traffic={"blue": 40, "green": 60}))
    would, _ = applied.diff(code=1)
    did, said = applied.apply()
    assert did == would
    moved = {"traffic.blue: 100 → 40", "traffic.green: not given → 60"}
    assert {f"~ endpoint digits: {one}" for one in moved} < set(did)
    # Content that is there is not sent again, whatever its name.
    assert said == ["1 created, 2 changed, 1 deleted, 2 unchanged"]
    assert _answers(gateway) == [DOUBLED, DOUBLED]


def test_a_mistake_changes_nothing_and_the_sentence_names_deployment_and_file(
    gateway: GatewayProcess, manager: Manager, applied: Ci
) -> None:
    revision = gateway.status()["revision"]
    write_folder(applied.folder, {"same.onnx": b"not a model at all"})
    applied.write(endpoint=endpoint_yaml(traffic={"blue": 40, "green": 60}))
    did, said = applied.apply(code=1)
    assert did == []
    assert said[-1].startswith("error: deployment digits/blue: same.onnx of azureml:")
    assert "is not an ONNX model" in said[-1]
    assert manager.traffic("digits") == {"blue": 100}
    assert manager.deployments("digits") == {"blue", "green"}
    assert gateway.status()["revision"] == revision
    assert _answers(gateway) == [SAME, DOUBLED]

    applied.write(blue="name: blue\nendpoint_name: digits\ninstance_cout: 2\n")
    did, said = applied.diff(code=2)
    assert did == []
    assert [line for line in said if "blue.yml" in line and "instance_cout" in line]


def test_what_the_folder_no_longer_holds_goes_and_what_others_made_stays(
    gateway: GatewayProcess, manager: Manager, applied: Ci
) -> None:
    model = manager.register("theirs", "1", bytes(FOLDER["double.onnx"]))  # type: ignore[arg-type]
    manager.endpoint("theirs")
    manager.deployment("theirs", "only", model)
    manager.deployment("digits", "extra", model)
    (applied.folder / "green.yml").unlink()

    assert applied.diff(code=1)[0] == ["- deployment digits/green"]
    assert applied.apply() == (["- deployment digits/green"], ["0 created, 0 changed, 1 deleted, 4 unchanged"])
    assert manager.deployments("digits") == {"blue", "extra"}
    assert _answers(gateway, names=("blue", "green", "extra")) == [SAME, 404, DOUBLED]
    assert _answers(gateway, "theirs", ("only",)) == [DOUBLED]

    doomed = {"- deployment digits/extra", "- deployment theirs/only", "- endpoint theirs", "- model theirs:1"}
    assert set(applied.diff("--prune", code=1)[0]) == doomed
    assert set(applied.apply("--prune")[0]) == doomed
    assert set(gateway.status()["endpoints"]) == {"digits"}
    assert manager.deployments("digits") == {"blue"}


def test_what_others_made_belongs_to_the_folder_once_it_names_it(manager: Manager, ci: Ci) -> None:
    manager.endpoint("digits")
    did, _ = ci.apply()
    assert "~ endpoint digits: belongs to the folder from now on; it was made by management.token" in did
    (ci.folder / "endpoint.yml").unlink()
    for name in ("blue", "green"):
        (ci.folder / f"{name}.yml").unlink()
    did, _ = ci.apply()
    assert {"- endpoint digits", "- deployment digits/blue", "- deployment digits/green"} <= set(did)


def test_an_export_applied_to_an_empty_gateway_gives_the_same_answers(
    gateway: GatewayProcess, applied: Ci, tmp_path: Path
) -> None:
    said, _ = applied.says("export", "-o", "backup", "--content")
    assert said == ["backup: documents 5, files of content 2"]
    with GatewayProcess(None, tmp_path / "second", scorers=1) as second, Manager(second) as manager:
        other = Ci(second, tmp_path)
        did, _ = other.says("apply", "-f", "backup")
        assert len(did) == 5
        assert _answers(second) == _answers(gateway) == [SAME, DOUBLED]
        assert manager.traffic("digits") == {"blue": 100}
        with Manager(gateway) as first:
            assert manager.key("digits") != first.key("digits")
        # The folder that it all came from says the same, too.
        assert other.diff() == ([], ["0 to create, 0 to change, 0 to delete, 5 unchanged"])


# Who may.


def test_a_reader_may_export_and_neither_diff_nor_apply(gateway: GatewayProcess, manager: Manager, ci: Ci) -> None:
    reader = Elsewhere(gateway, make_token(manager, "auditor", "reader"), ci.place, name="reader")
    before = gateway.status()["revision"]
    for command, code in (("apply", 1), ("diff", 2)):
        refused = reader.run(command, "-f", "models")
        assert (refused.returncode, refused.stdout) == (code, "")
        assert refused.stderr == "error: this needs the role operator, and token:auditor has the role reader\n"
    assert reader.run("export").returncode == 0
    assert gateway.status()["revision"] == before


def test_without_the_authority_or_with_a_wrong_token_nothing_is_told(
    gateway: GatewayProcess, manager: Manager, ci: Ci
) -> None:
    stranger = Elsewhere(gateway, "igm_" + "x" * 43, ci.place, name="stranger")
    refused = stranger.run("apply", "-f", "models")
    assert refused.returncode == 1
    assert "the management token is not known to" in refused.stderr
    other = ensure_certificates(ci.place / "tls", ["127.0.0.1"])
    distrustful = Elsewhere(gateway, make_token(manager, "distrustful", "operator"), ci.place, ca=str(other.ca))
    refused = distrustful.run("diff", "-f", "models")
    assert refused.returncode == 2
    assert "CERTIFICATE_VERIFY_FAILED" in refused.stderr
    assert "name its authority with --ca" in refused.stderr


# A folder on the gateway's own disk.


def test_serve_apply_reload_and_rest_are_one_truth(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "models", FOLDER)
    with killed(GatewayProcess(folder, tmp_path / "state", scorers=1)) as first, Manager(first) as manager:
        model = manager.register("theirs", "1", bytes(FOLDER["double.onnx"]))  # type: ignore[arg-type]
        manager.deployment("digits", "extra", model)
        manager.do("PUT", endpoint_path("digits"), endpoint_body({"blue": 50, "extra": 50}, {}))
        key = manager.key("digits")
        # The folder says all of an endpoint that it names, and nothing of what it does not.
        first.reload()
        assert manager.traffic("digits") == {"blue": 100}
        assert manager.deployments("digits") == {"blue", "green", "extra"}
        manager.do("PUT", endpoint_path("digits"), endpoint_body({"extra": 100}, {}))

    # Without the folder, a gateway goes on with what was made of it and after it.
    with GatewayProcess(None, tmp_path / "state", scorers=1) as second, Manager(second) as manager:
        assert manager.traffic("digits") == {"extra": 100}
        assert manager.key("digits") == key

    (folder / "green.yml").unlink()
    with GatewayProcess(folder, tmp_path / "state", scorers=1) as third, Manager(third) as manager:
        assert manager.traffic("digits") == {"blue": 100}
        assert manager.key("digits") == key
        assert _answers(third, names=("blue", "green", "extra")) == [SAME, 404, DOUBLED]
        who = {one["who"] for one in manager.need("GET", "/audit?limit=1000")["value"]}
        assert who >= {"folder", "management.token"}
