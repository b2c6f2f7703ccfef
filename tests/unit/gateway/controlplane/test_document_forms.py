"""Documents in the store: short, exact, and in one spelling."""

from __future__ import annotations

import msgspec
import pytest

from gateway.controlplane import kinds
from gateway.controlplane.decode import decode
from gateway.controlplane.documents import (
    Blame,
    DocumentError,
    document_type,
    from_builtins,
    normal_form,
    to_builtins,
)
from gateway.controlplane.store.records import Kind
from gateway.controlplane.yaml_types import (
    AmountsYaml,
    BatchDeploymentYaml,
    BatchEndpointYaml,
    BatchResourcesYaml,
    BatchRetryYaml,
    BatchSettingsYaml,
    CodeAssetYaml,
    CodeYaml,
    CollectedDataYaml,
    CollectionYaml,
    DataCollectorYaml,
    DataYaml,
    EnvironmentYaml,
    IdentityYaml,
    InferenceYaml,
    ModelYaml,
    OnlineDeploymentYaml,
    OnlineEndpointYaml,
    ProbeYaml,
    RequestLoggingYaml,
    ResourcesYaml,
    UserIdentityYaml,
)
from gateway.yaml_text import Entries, read_documents

WORKSPACE = "/subscriptions/s/resourceGroups/g/providers/Microsoft.MachineLearningServices/workspaces/w"
KUBERNETES = "https://azuremlschemas.azureedge.net/latest/kubernetesOnline{}.schema.json"


def entries(text: str) -> Entries:
    (document,), mistakes = read_documents(text.encode())
    assert not mistakes
    assert isinstance(document, Entries)
    return document


def normal(document: msgspec.Struct) -> msgspec.Struct:
    found, blames = normal_form(document)
    assert blames == []
    assert normal_form(found) == (found, [])
    return found


def online(**given: object) -> OnlineDeploymentYaml:
    return OnlineDeploymentYaml(name="blue", endpoint_name="digits", **given)  # type: ignore[arg-type]


def batch(**given: object) -> BatchDeploymentYaml:
    return BatchDeploymentYaml(name="one", endpoint_name="files", **given)  # type: ignore[arg-type]


def test_what_is_as_the_default_is_not_kept() -> None:
    document = online(instance_count=2, liveness_probe=ProbeYaml(), tags={"a": "b"})
    stored = to_builtins(document)
    assert stored == {
        "name": "blue",
        "endpoint_name": "digits",
        "instance_count": 2,
        "liveness_probe": {},
        "tags": {"a": "b"},
    }
    assert from_builtins(Kind.ONLINE_DEPLOYMENT, stored) == document


def test_names_of_keys_are_those_of_yaml() -> None:
    document = online(
        schema_="s", resources=ResourcesYaml(limits=AmountsYaml(nvidia_gpu="1")), model=ModelYaml(path="m.onnx")
    )
    stored = to_builtins(document)
    assert stored["$schema"] == "s"
    assert stored["resources"] == {"limits": {"nvidia.com/gpu": "1"}}
    assert from_builtins(Kind.ONLINE_DEPLOYMENT, stored) == document


def test_every_kind_but_a_rollout_has_a_document() -> None:
    assert document_type(Kind.CODE) is CodeAssetYaml
    assert {document_type(kind) for kind in kinds.KEPT.values()} == {
        document_type(kind) for kind in Kind if kind is not Kind.ROLLOUT
    }
    with pytest.raises(DocumentError, match="rollout has no YAML document"):
        document_type(Kind.ROLLOUT)


def test_stored_data_that_is_no_document_is_an_error() -> None:
    with pytest.raises(DocumentError, match=r"cannot read a stored online_endpoint document: .*unknown field `nmae`"):
        from_builtins(Kind.ONLINE_ENDPOINT, {"name": "a", "nmae": "b"})


def test_read_only_keys_and_hints_are_gone() -> None:
    document = OnlineEndpointYaml(
        name="Digits",
        schema_="x/managedOnlineEndpoint.schema.json",
        id="i",
        kind="Managed",
        location="l",
        scoring_uri="s",
        openapi_uri="o",
        provisioning_state="Succeeded",
        identity=IdentityYaml(principal_id="p", tenant_id="t"),
        traffic={"Blue": 100},
        mirror_traffic={"GREEN": 10},
    )
    assert normal(document) == OnlineEndpointYaml(name="Digits", traffic={"blue": 100}, mirror_traffic={"green": 10})


def test_names_that_become_one_stay_for_the_rules() -> None:
    document = OnlineEndpointYaml(name="d", traffic={"Blue": 50, "blue": 50})
    assert normal(document) == document


def test_a_kubernetes_schema_becomes_a_compute_and_a_type() -> None:
    endpoint = OnlineEndpointYaml(name="d", schema_=KUBERNETES.format("Endpoint"))
    assert normal(endpoint) == OnlineEndpointYaml(name="d", compute="azureml:local")
    assert normal(online(schema_=KUBERNETES.format("Deployment"))) == online(type="kubernetes")
    assert normal(online(schema_=KUBERNETES.format("Deployment"), type="managed")) == online()
    named = OnlineEndpointYaml(name="d", compute=f"{WORKSPACE}/computes/c", schema_=KUBERNETES.format("Endpoint"))
    assert normal(named) == OnlineEndpointYaml(name="d", compute="azureml:c")


def test_a_user_identity_stays() -> None:
    user = UserIdentityYaml(resource_id="/id", client_id="c", principal_id="p")
    document = BatchEndpointYaml(
        name="f", identity=IdentityYaml(type="user_assigned", user_assigned_identities=(user,))
    )
    expected = IdentityYaml(type="user_assigned", user_assigned_identities=(UserIdentityYaml(resource_id="/id"),))
    assert normal(document) == BatchEndpointYaml(name="f", identity=expected)


def test_references_have_one_form_and_local_paths_stay() -> None:
    given = online(
        model=f"{WORKSPACE}/models/m/versions/1",
        environment=f"azureml:{WORKSPACE}/environments/e/versions/2",
        code_configuration=CodeYaml(code="./src", scoring_script="s.py"),
    )
    assert normal(given) == online(
        model="azureml:m:1",
        environment="azureml:e:2",
        code_configuration=CodeYaml(code="./src", scoring_script="s.py"),
    )
    inline = online(model=ModelYaml(schema_="x", path="m.onnx", datastore="d"), code_configuration=CodeYaml())
    assert normal(inline) == online(model=ModelYaml(path="m.onnx"))
    assert normal(online(model="")) == online()


def test_what_is_given_as_its_default_is_not_given() -> None:
    given = online(
        type="managed",
        liveness_probe=ProbeYaml(),
        readiness_probe=ProbeYaml(period=5),
        resources=ResourcesYaml(),
        data_collector=DataCollectorYaml(request_logging=RequestLoggingYaml()),
    )
    assert normal(given) == online(readiness_probe=ProbeYaml(period=5))
    empty = EnvironmentYaml(name="e", inference_config=InferenceYaml())
    assert normal(empty) == EnvironmentYaml(name="e")


def test_both_names_of_a_gpu_are_one() -> None:
    given = online(resources=ResourcesYaml(requests=AmountsYaml(nvidia_gpu="1"), limits=AmountsYaml(gpu="2")))
    assert normal(given) == online(
        resources=ResourcesYaml(requests=AmountsYaml(gpu="1"), limits=AmountsYaml(gpu="2"))
    )


def test_a_rate_for_all_becomes_each_ones_own() -> None:
    given = DataCollectorYaml(
        sampling_rate=0.5,
        collections={
            "a": CollectionYaml(data=CollectedDataYaml(name="x")),
            "b": CollectionYaml(sampling_rate=1.0, data=CollectedDataYaml(data_id=f"{WORKSPACE}/data/y/versions/3")),
            "c": CollectionYaml(sampling_rate=0.25, data=CollectedDataYaml(name="z", path="azureml://datastores/d")),
            "d": CollectionYaml(data=CollectedDataYaml()),
        },
    )
    assert normal(online(data_collector=given)) == online(
        data_collector=DataCollectorYaml(
            collections={
                "a": CollectionYaml(sampling_rate=0.5, data="azureml:x:1"),
                "b": CollectionYaml(data="azureml:y:3"),
                "c": CollectionYaml(
                    sampling_rate=0.25, data=CollectedDataYaml(name="z", path="azureml://datastores/d")
                ),
                "d": CollectionYaml(sampling_rate=0.5),
            }
        )
    )


def test_what_has_no_form_is_blamed_and_left() -> None:
    registry = "azureml://registries/r/models/m/versions/1"
    found, blames = normal_form(online(model=registry, environment="azureml:e"))
    assert [one.path for one in blames] == ["model", "environment"]
    assert "registries are not served here" in blames[0].text
    assert isinstance(found, OnlineDeploymentYaml)
    assert found.model == registry


def test_older_batch_keys_move_into_settings() -> None:
    given = batch(
        schema_="https://x/batchDeployment.schema.json",
        compute="azureml:cpu",
        mini_batch_size=2,
        output_action="summary_only",
        retry_settings=BatchRetryYaml(timeout=5),
        error_threshold=0,
        logging_level="debug",
        output_file_name="a.csv",
        max_concurrency_per_instance=3,
        environment_variables={"A": "1"},
        settings=BatchSettingsYaml(instance_count=4, environment_variables={"B": "2"}),
    )
    assert normal(given) == batch(
        compute="azureml:cpu",
        environment_variables={"A": "1", "B": "2"},
        resources=BatchResourcesYaml(instance_count=4),
        settings=BatchSettingsYaml(
            mini_batch_size=2,
            output_action="summary_only",
            retry_settings=BatchRetryYaml(timeout=5),
            error_threshold=0,
            logging_level="debug",
            output_file_name="a.csv",
            max_concurrency_per_instance=3,
        ),
    )


def test_two_values_for_one_batch_setting_are_blamed() -> None:
    given = batch(
        mini_batch_size=2,
        settings=BatchSettingsYaml(mini_batch_size=3, instance_count=4),
        resources=BatchResourcesYaml(instance_count=5),
    )
    assert normal_form(given)[1] == [
        Blame("mini_batch_size", "settings.mini_batch_size is given too; accepted: one of the two"),
        Blame("settings.instance_count", "resources.instance_count is given too; accepted: one of the two"),
    ]
    assert normal_form(batch(mini_batch_size=3, settings=BatchSettingsYaml(mini_batch_size=3)))[1] == []


@pytest.mark.parametrize(
    "given", [{"type": "pipeline"}, {"component": "azureml:c:1"}, {"job_definition": {"a": "b"}}]
)
def test_pipelines_are_blamed(given: dict[str, object]) -> None:
    (blame,) = normal_form(batch(**given))[1]
    assert blame == Blame("type", "pipeline deployments are not supported; accepted: type: model, with a model")


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("$schema: https://x/latest/codeAsset.schema.json\nname: c\npath: ./src", kinds.CODE),
        ("$schema: https://x/latest/data.schema.json\nname: x\npath: y", kinds.DATA),
        ("name: x\ntype: URI_FOLDER\npath: y", kinds.DATA),
        ("name: x\ntype: mlflow_model\npath: y", kinds.MODEL),
        ("name: x\nendpoint_name: y\nmodel: z\nsettings: {}", kinds.BATCH_DEPLOYMENT),
        ("name: x\ndefaults: {}", kinds.BATCH_ENDPOINT),
        ("name: x\nimage: y", kinds.ENVIRONMENT),
    ],
)
def test_kinds_are_told_by_schema_or_keys(text: str, kind: str) -> None:
    assert kinds.kind_of(entries(text)) == kind
    assert kind in kinds.KEPT


def test_a_file_may_have_the_packages_inline() -> None:
    text = "name: e\nimage: i\nconda_file:\n  channels: [a]\n  dependencies: [python=3.11, {pip: [b, null]}]\n"
    document, mistakes = decode(entries(text), EnvironmentYaml)
    assert mistakes == []
    assert document is not None
    assert document.conda_file == {"channels": ["a"], "dependencies": ["python=3.11", {"pip": ["b", None]}]}


def test_a_batch_file_is_read_in_both_forms() -> None:
    newer = (
        "name: one\nendpoint_name: files\ntype: model\nsettings: {mini_batch_size: 2, output_action: append_row}\n"
    )
    older = "name: one\nendpoint_name: files\nmini_batch_size: 2\noutput_action: append_row\n"
    read = [decode(entries(text), BatchDeploymentYaml) for text in (newer, older)]
    documents = [document for document, mistakes in read if document is not None and not mistakes]
    assert [normal(one) for one in documents] == [batch(settings=BatchSettingsYaml(mini_batch_size=2))] * 2


def test_a_data_file_is_read() -> None:
    document, mistakes = decode(entries("name: x\nversion: 1\ntype: uri_file\npath: a.csv\n"), DataYaml)
    assert (document, mistakes) == (DataYaml(name="x", version="1", type="uri_file", path="a.csv"), [])
