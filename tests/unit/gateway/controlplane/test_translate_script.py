"""The script of a deployment: what is read of its YAML, and each mistake at its key and, in Python, its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.controlplane.arm.ids import IdError
from gateway.controlplane.model_files import ModelFileError
from gateway.controlplane.place import Place
from gateway.controlplane.store.records import Kind
from gateway.controlplane.translate_script import Tree, Trees, script_of, tree_of, unresolved_tree
from gateway.controlplane.yaml_types import (
    BatchingYaml,
    CodeYaml,
    DeploymentGatewayYaml,
    EnvironmentYaml,
    ModelYaml,
    OnlineDeploymentYaml,
    ProbeYaml,
    RuntimeYaml,
)
from gateway.liveness import Probe
from gateway.resources import AssetTree, LocalTree, Script, ScriptEnvironment
from gateway.yaml_text import Entries

FILES = (("score.py", "0" * 64, 3), ("lib/help.py", "1" * 64, 4))
REGISTERED = Tree(reference="azureml:c:1", files=FILES, folder="src")


def registered(kind: Kind, reference: str) -> Tree:
    if "lost" in reference:
        raise ModelFileError("model", "there is no such asset")
    if kind is Kind.ENVIRONMENT:
        return Tree(reference=reference, environment=ScriptEnvironment(reference=reference, document={"image": ""}))
    return REGISTERED


@pytest.fixture
def place(tmp_path: Path) -> Place:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "score.py").write_text("def init(): ...\ndef run(raw): ...\n")
    return Place(file=tmp_path / "d.yml", label="d.yml", document=Entries({}, 1, {}))


def script(place: Place, *, trees: Trees = registered, **given: object) -> Script | None:
    code = given.pop("code", CodeYaml(code="src", scoring_script="score.py"))
    source = OnlineDeploymentYaml(name="blue", endpoint_name="digits", code_configuration=code, **given)  # type: ignore[arg-type]
    return script_of(source, place, trees)


def mistakes(place: Place, name: str, code: str = "src", trees: Trees = registered) -> list[str]:
    script(place, code=CodeYaml(code=code, scoring_script=name), trees=trees)
    return [f"{one.path}: {one.text}" for one in place.mistakes]


def test_local_code_and_model_are_where_the_yaml_file_says(place: Place) -> None:
    (place.file.parent / "weights").mkdir()
    found = script(place, model=ModelYaml(path="weights"), environment_variables={"A": "b"})
    assert found == Script(
        code=LocalTree(path=place.file.parent / "src"),
        scoring_script="score.py",
        model=LocalTree(path=place.file.parent / "weights"),
        variables={"A": "b"},
    )
    found = script(place, model="src/score.py", code=CodeYaml(scoring_script="src/score.py"))
    assert found is not None
    assert found.code == LocalTree(path=place.file.parent)
    assert found.model == LocalTree(path=place.file.parent / "src" / "score.py")
    assert place.mistakes == []


def test_registered_code_and_model_are_their_files(place: Place) -> None:
    found = script(place, code=CodeYaml(code="azureml:c:1", scoring_script="./score.py"), model="azureml:m:1")
    assert found is not None
    assert found.code == found.model == AssetTree(reference="azureml:c:1", files=FILES, folder="src")
    assert place.mistakes == []


def test_the_time_for_init_is_that_of_the_readiness_probe(place: Place) -> None:
    probe = ProbeYaml(initial_delay=5, period=3, failure_threshold=4)
    found = script(place, readiness_probe=probe)
    assert found is not None
    assert found.init_timeout_s == 17


def test_where_one_probe_or_both_are_given_init_has_the_longer_time(place: Place) -> None:
    short, long = ProbeYaml(initial_delay=5, period=3, failure_threshold=4), ProbeYaml(initial_delay=600)
    cases = ((None, None, 310), (short, None, 17), (None, short, 17), (short, long, 900), (long, short, 900))
    for readiness, liveness, expected in cases:
        found = script(place, readiness_probe=readiness, liveness_probe=liveness)
        assert found is not None
        assert found.init_timeout_s == expected


def test_the_liveness_probe_is_the_workers_and_what_has_no_effect_is_said(place: Place) -> None:
    plain = script(place)
    assert plain is not None
    assert plain.liveness == Probe()
    probe = ProbeYaml(initial_delay=1, period=2, timeout=3, failure_threshold=4)
    found = script(place, liveness_probe=probe, readiness_probe=ProbeYaml(period=7))
    assert found is not None
    assert found.liveness == Probe(initial_delay_s=1, period_s=2, timeout_s=3, failure_threshold=4)
    assert place.notes == []
    script(place, liveness_probe=ProbeYaml(success_threshold=2), readiness_probe=ProbeYaml(timeout=9))
    said = " ".join(map(str, place.notes))
    assert "liveness_probe.success_threshold: has no effect" in said
    assert "readiness_probe.timeout: has no effect" in said


@pytest.mark.parametrize("name", ["/etc/passwd", "../other.py", "lib/../../x.py"])
@pytest.mark.parametrize("code", ["src", "azureml:c:1"])
def test_a_script_outside_its_code_is_blamed(place: Place, name: str, code: str) -> None:
    (said,) = mistakes(place, name, code)
    assert said == f"code_configuration.scoring_script: found {name!r}; accepted: a file inside code"


def test_a_script_that_the_code_does_not_have_is_blamed(place: Place) -> None:
    assert "has no file 'main.py'; it has score.py, lib/help.py" in mistakes(place, "main.py", "azureml:c:1")[0]
    place.mistakes.clear()
    assert "cannot read 'main.py'" in mistakes(place, "main.py")[0]
    place.mistakes.clear()
    assert "cannot read '.'" in mistakes(place, ".")[0]
    place.mistakes.clear()
    assert mistakes(place, "main.py", "azureml:c:1", unresolved_tree) == []


def test_a_missing_name_of_a_script_is_blamed(place: Place) -> None:
    assert script(place, code=CodeYaml(code="src")) is None
    assert "scoring_script" in place.mistakes[0].path


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"def run(:\n", "score.py, line 1: invalid syntax"),
        (b"x = 1\n  y = 2\n", "score.py, line 2: unexpected indent"),
        (b"\xff\xfe", "score.py, line 1: "),
        (b"x\x00", "score.py: source code string cannot contain null bytes"),
        (b"(" * 5000, "score.py, line 1: too many nested parentheses"),
        (b"-" * 100_000 + b"1", "score.py: it nests deeper than Python reads"),
    ],
)
def test_a_script_that_is_not_python_is_blamed_with_its_line(place: Place, text: bytes, said: str) -> None:
    (place.file.parent / "src" / "score.py").write_bytes(text)
    (found,) = mistakes(place, "score.py")
    assert said.replace("score.py, line 1: ", "score.py") in found.replace("score.py, line 1: ", "score.py")


def test_what_python_only_warns_of_is_no_mistake(place: Place) -> None:
    (place.file.parent / "src" / "score.py").write_text("x = '\\d'\nassert (1, 'always')\n")
    assert mistakes(place, "score.py") == []


@pytest.mark.parametrize("text", ["lost", "a\0b", "x" * 5000])
def test_a_path_that_leads_nowhere_is_refused(place: Place, text: str) -> None:
    with pytest.raises(ModelFileError) as caught:
        tree_of(text, place, Kind.CODE, "code_configuration.code", registered)
    assert caught.value.key == "code_configuration.code"
    assert "accepted: a file or folder" in caught.value.text


def test_a_reference_of_another_kind_or_to_nothing_is_refused(place: Place) -> None:
    with pytest.raises(ModelFileError):
        tree_of("azureml:lost:1", place, Kind.MODEL, "model", registered)

    def of_another_kind(kind: Kind, reference: str) -> Tree:
        raise IdError("it is a model")

    with pytest.raises(ModelFileError, match="it is a model"):
        tree_of("azureml:c:1", place, Kind.CODE, "code_configuration.code", of_another_kind)


def test_an_environment_is_inline_registered_or_a_name(place: Place) -> None:
    def environment(given: str | EnvironmentYaml | None) -> ScriptEnvironment:
        found = script(place, environment=given)
        assert found is not None
        return found.environment

    assert environment(None) == ScriptEnvironment()
    assert environment("local") == ScriptEnvironment(reference="local")
    assert environment("azureml:e:1") == ScriptEnvironment(reference="azureml:e:1", document={"image": ""})
    # Nobody registers what is curated; what is neither is refused when it is built.
    assert environment("azureml:lost:1") == ScriptEnvironment(reference="azureml:lost:1")
    inline = environment(EnvironmentYaml(conda_file={"dependencies": ["numpy"]}))
    assert inline.document is not None
    assert inline.document["conda_file"] == {"dependencies": ["numpy"]}


def notes(place: Place, code: str, **batching: object) -> list[str]:
    place.notes.clear()
    given = DeploymentGatewayYaml(batching=BatchingYaml(**batching))  # type: ignore[arg-type]
    script(place, code=CodeYaml(code=code, scoring_script="score.py"), gateway=given)
    return list(place.notes)


@pytest.mark.parametrize("code", ["src", "azureml:c:1"])
def test_limits_of_batches_are_in_vain_without_run_batch(place: Place, code: str) -> None:
    assert notes(place, code) == notes(place, code, queue_items_max=3) == []
    (note,) = notes(place, code, max_rows=4)
    assert note.endswith("gateway.batching.max_rows: has no effect unless the scoring script defines run_batch()")
    assert len(notes(place, code, enabled=False, slo_ms=3.0, queue_delay_ms=1.0)) == 3


def test_limits_of_batches_have_an_effect_with_run_batch_and_those_of_tensors_never(place: Place) -> None:
    (place.file.parent / "src" / "score.py").write_text("def init(): ...\ndef run_batch(batch): ...\n")
    assert notes(place, "src", max_rows=4, enabled=False, slo_ms=3.0, queue_delay_ms=1.0) == []
    (note,) = notes(place, "src", sizes=(1, 2))
    assert note.endswith("gateway.batching.sizes: has no effect with code_configuration; it is for ONNX models")


def test_what_runs_an_onnx_model_is_in_vain_for_a_script(place: Place) -> None:
    script(place, gateway=DeploymentGatewayYaml(runtime=RuntimeYaml(threads=2)))
    assert [note.partition(": has")[0] for note in place.notes] == ["d.yml: gateway.runtime"]
