"""Files in the forms that Azure Machine Learning's documentation shows, and what becomes of each here.

The names are ours, the forms are Azure's: `$schema`, keys, casing, strings for numbers. `page()` reads every sample
as `gateway check` does and tells the outcome; docs/azure-yaml.md is made by it. No key is silently ignored: a sample
is accepted whole, accepted with the keys named that have no effect, or refused with the reason named.
"""

from __future__ import annotations

import functools
import re
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from gateway.controlplane.folder import FolderError, read_folder
from gateway.controlplane.yaml_types import NOTED

_HOME = "https://azuremlschemas.azureedge.net/latest"
_ENDPOINT = f"$schema: {_HOME}/managedOnlineEndpoint.schema.json\nname: digits\nauth_mode: key\n"
_DEPLOYMENT = f"$schema: {_HOME}/managedOnlineDeployment.schema.json\nname: blue\nendpoint_name: digits\n"
_SIZE = "instance_type: Standard_DS3_v2\ninstance_count: 1\n"
_MODEL = "model:\n  path: ./model/digits.onnx\n"
_BATCH = f"$schema: {_HOME}/batchEndpoint.schema.json\nname: scans\nauth_mode: aad_token\n"
_ONNX = {"model/digits.onnx": ""}
_TRITON = "model:\n  name: densenet\n  version: 1\n  path: ./models\n  type: triton_model\n"
_CONFIG = """name: "densenet"
platform: "onnxruntime_onnx"
max_batch_size: 8
input [ { name: "data_0" data_type: TYPE_FP32 dims: [ 3, 224, 224 ] } ]
output [ { name: "fc6_1" data_type: TYPE_FP32 dims: [ 1000 ] label_filename: "densenet_labels.txt" } ]
dynamic_batching { }
"""
_MLFLOW = "model:\n  name: digits\n  version: 1\n  path: ./model\n  type: mlflow_model\n"
_MLMODEL = "flavors:\n  python_function: {loader_module: mlflow.sklearn, env: {conda: conda.yaml}}\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A folder: YAML by name of file, and other files that it names. `what` says what the sample shows."""

    what: str
    group: str
    files: dict[str, str]
    beside: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What becomes of a sample: the keys without effect, or the reasons why it is refused."""

    notes: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        if self.reasons:
            return "refused: " + "; ".join(self.reasons)
        return "accepted" + (", without effect: " + "; ".join(self.notes) if self.notes else "")


def _served(what: str, deployment: str, *, group: str, endpoint: str = _ENDPOINT, **beside: str) -> Sample:
    """An endpoint and one deployment."""
    return Sample(
        what=what, group=group, files={"endpoint.yml": endpoint, "blue.yml": deployment}, beside=_ONNX | beside
    )


_ENDPOINTS = "Endpoints"
_DEPLOYMENTS = "Deployments"
_KUBERNETES = "Kubernetes"
_SCRIPTS = "Scripts, containers, other model formats"
_ASSETS = "Registered assets"
_JOBS = "Batch"
_OTHER = "Other files of a repository"

SAMPLES = (
    Sample(what="managed endpoint with a key", group=_ENDPOINTS, files={"endpoint.yml": _ENDPOINT}),
    Sample(
        what="endpoint without `$schema`, tags, description and properties",
        group=_ENDPOINTS,
        files={
            "endpoint.yml": "name: digits\ndescription: reads digits\nauth_mode: Key\ntags:\n  team: vision\n"
            "  cost-center: '42'\nproperties:\n  reviewed: true\n"
        },
    ),
    Sample(
        what="token of the workspace",
        group=_ENDPOINTS,
        files={"endpoint.yml": _ENDPOINT.replace("auth_mode: key", "auth_mode: aml_token")},
    ),
    Sample(
        what="Microsoft Entra token",
        group=_ENDPOINTS,
        files={"endpoint.yml": _ENDPOINT.replace("auth_mode: key", "auth_mode: aad_token")},
    ),
    Sample(
        what="user-assigned identity",
        group=_ENDPOINTS,
        files={
            "endpoint.yml": _ENDPOINT + "identity:\n  type: user_assigned\n  user_assigned_identities:\n"
            "    - resource_id: /subscriptions/SUB/resourceGroups/GROUP/providers/Microsoft.ManagedIdentity/"
            "userAssignedIdentities/reader\n"
        },
    ),
    Sample(
        what="closed to the public network",
        group=_ENDPOINTS,
        files={"endpoint.yml": _ENDPOINT + "public_network_access: disabled\n"},
    ),
    Sample(
        what="blue and green behind one endpoint, 90 to 10",
        group=_ENDPOINTS,
        files={
            "endpoint.yml": _ENDPOINT + "traffic:\n  blue: 90\n  green: 10\n",
            "blue.yml": _DEPLOYMENT + _MODEL + _SIZE,
            "green.yml": _DEPLOYMENT.replace("blue", "green") + _MODEL + _SIZE,
        },
        beside=_ONNX,
    ),
    Sample(
        what="traffic mirrored to green",
        group=_ENDPOINTS,
        files={
            "endpoint.yml": _ENDPOINT + "traffic:\n  blue: 100\nmirror_traffic:\n  green: 10\n",
            "blue.yml": _DEPLOYMENT + _MODEL + _SIZE,
            "green.yml": _DEPLOYMENT.replace("blue", "green") + _MODEL + _SIZE,
        },
        beside=_ONNX,
    ),
    Sample(
        what="traffic to a deployment that does not exist yet",
        group=_ENDPOINTS,
        files={"endpoint.yml": _ENDPOINT + "traffic:\n  blue: 100\n"},
    ),
    _served("model file, size and count", _DEPLOYMENT + _MODEL + _SIZE, group=_DEPLOYMENTS),
    _served(
        "`type: managed`, numbers in quotes, a folder as the model",
        "type: managed\nname: blue\nendpoint_name: digits\nmodel:\n  name: digits\n  version: 1\n  path: model\n"
        "instance_type: Standard_F4s_v2\ninstance_count: '2'\n",
        group=_DEPLOYMENTS,
    ),
    _served(
        "request settings",
        _DEPLOYMENT
        + _MODEL
        + _SIZE
        + "request_settings:\n  request_timeout_ms: 3000\n  max_concurrent_requests_per_instance: 4\n"
        "  max_queue_wait_ms: 500\n",
        group=_DEPLOYMENTS,
    ),
    _served(
        "longer probes",
        _DEPLOYMENT
        + _MODEL
        + _SIZE
        + "liveness_probe:\n  initial_delay: 300\n  period: 10\n  timeout: 2\n  success_threshold: 1\n"
        "  failure_threshold: 30\nreadiness_probe:\n  initial_delay: 300\n",
        group=_DEPLOYMENTS,
    ),
    _served(
        "environment by reference, variables, Application Insights",
        _DEPLOYMENT
        + _MODEL
        + _SIZE
        + "environment: azureml:AzureML-onnxruntime@latest\nenvironment_variables:\n  WORKER_COUNT: 4\n"
        "app_insights_enabled: true\n",
        group=_DEPLOYMENTS,
    ),
    _served(
        "no public egress",
        _DEPLOYMENT + _MODEL + _SIZE + "egress_public_network_access: disabled\n",
        group=_DEPLOYMENTS,
    ),
    _served(
        "payload logging",
        _DEPLOYMENT
        + _MODEL
        + _SIZE
        + "data_collector:\n  sampling_rate: 0.8\n  rolling_rate: Hour\n  request_logging:\n"
        "    capture_headers: [x-tenant]\n  collections:\n    request:\n      enabled: 'True'\n"
        "    response:\n      enabled: 'True'\n      data:\n        name: answers\n        version: '1'\n"
        "        path: azureml://datastores/workspaceblobstore/paths/answers\n",
        group=_DEPLOYMENTS,
    ),
    _served(
        "custom logging without a script",
        _DEPLOYMENT + _MODEL + _SIZE + "data_collector:\n  collections:\n    model_inputs:\n      enabled: 'True'\n"
        "    model_outputs:\n      enabled: 'False'\n      client_id: 00000000-0000-0000-0000-000000000001\n",
        group=_DEPLOYMENTS,
    ),
    _served(
        "payload logging with the callers' credentials",
        _DEPLOYMENT
        + _MODEL
        + _SIZE
        + "data_collector:\n  request_logging:\n    capture_headers: [Authorization]\n  collections:\n"
        "    request:\n      enabled: 'True'\n",
        group=_DEPLOYMENTS,
    ),
    _served(
        "instances as the load needs",
        _DEPLOYMENT
        + _MODEL
        + _SIZE
        + "scale_settings:\n  type: target_utilization\n  min_instances: 1\n  max_instances: 3\n"
        "  polling_interval: 10\n  target_utilization_percentage: 70\n",
        group=_DEPLOYMENTS,
    ),
    _served(
        "fixed count said in words",
        _DEPLOYMENT + _MODEL + _SIZE + "scale_settings:\n  type: default\n",
        group=_DEPLOYMENTS,
    ),
    _served("GPU size", _DEPLOYMENT + _MODEL + "instance_type: Standard_NC4as_T4_v3\n", group=_DEPLOYMENTS),
    _served("no size", _DEPLOYMENT + _MODEL, group=_DEPLOYMENTS),
    _served(
        "endpoint and deployment on an attached cluster",
        f"$schema: {_HOME}/kubernetesOnlineDeployment.schema.json\ntype: kubernetes\n"
        + "name: blue\nendpoint_name: digits\n"
        + _MODEL
        + "resources:\n  requests:\n    cpu: '0.1'\n    memory: 0.2Gi\n  limits:\n    cpu: '1'\n    memory: 1Gi\n",
        group=_KUBERNETES,
        endpoint=f"$schema: {_HOME}/kubernetesOnlineEndpoint.schema.json\nname: digits\ncompute: azureml:cluster\n"
        "auth_mode: Key\n",
    ),
    _served(
        "scaled by utilization, with an instance type and a GPU",
        f"$schema: {_HOME}/kubernetesOnlineDeployment.schema.json\nname: blue\nendpoint_name: digits\n"
        + _MODEL
        + "instance_type: gpu-small\nresources:\n  limits:\n    nvidia.com/gpu: 1\nscale_settings:\n"
        "  type: target_utilization\n  min_instances: 1\n  max_instances: 3\n",
        group=_KUBERNETES,
        endpoint=f"$schema: {_HOME}/kubernetesOnlineEndpoint.schema.json\nname: digits\ncompute: azureml:cluster\n",
    ),
    _served(
        "mirrored traffic on a cluster",
        f"$schema: {_HOME}/kubernetesOnlineDeployment.schema.json\nname: blue\nendpoint_name: digits\n" + _MODEL,
        group=_KUBERNETES,
        endpoint=f"$schema: {_HOME}/kubernetesOnlineEndpoint.schema.json\nname: digits\ncompute: azureml:cluster\n"
        "mirror_traffic:\n  blue: 10\n",
    ),
    _served(
        "scoring script with an inline environment and a pickled model",
        _DEPLOYMENT + "model:\n  path: ./model/digits.pkl\ncode_configuration:\n  code: ./onlinescoring\n"
        "  scoring_script: score.py\nenvironment:\n  conda_file: ./environment/conda.yaml\n"
        "  image: mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu20.04:latest\n" + _SIZE,
        group=_SCRIPTS,
        **{
            "model/digits.pkl": "",
            "onlinescoring/score.py": "def init():\n    pass\n\n\ndef run(raw):\n    return raw\n",
            "environment/conda.yaml": "name: digits\ndependencies: [python=3.11, {pip: [scikit-learn]}]\n",
        },
    ),
    _served(
        "scoring script with registered code and a curated environment, variables, probes, egress, batching",
        _DEPLOYMENT + "model: azureml:digits-model:1\ncode_configuration:\n  code: azureml:digits-code:1\n"
        "  scoring_script: score.py\nenvironment: azureml:AzureML-sklearn-1.5@latest\nenvironment_variables:\n"
        "  WORKER_COUNT: 4\nreadiness_probe:\n  initial_delay: 300\nliveness_probe:\n  initial_delay: 300\n"
        "egress_public_network_access: disabled\ngateway:\n  batching:\n    max_rows: 8\n" + _SIZE,
        group=_SCRIPTS,
    ),
    _served(
        "scoring script that cannot be parsed",
        _DEPLOYMENT + "code_configuration:\n  code: ./onlinescoring\n  scoring_script: score.py\n"
        "environment: local\n" + _SIZE,
        group=_SCRIPTS,
        **{"onlinescoring/score.py": "def init(:\n"},
    ),
    _served(
        "custom container with TensorFlow Serving",
        _DEPLOYMENT + "model:\n  name: digits-tf\n  version: 1\n  path: ./model\nenvironment_variables:\n"
        "  MODEL_BASE_PATH: /var/azureml-app/azureml-models/digits-tf/1\n  MODEL_NAME: digits\nenvironment:\n"
        "  image: docker.io/tensorflow/serving:latest\n  inference_config:\n    liveness_route:\n      port: 8501\n"
        "      path: /v1/models/digits\n    readiness_route:\n      port: 8501\n      path: /v1/models/digits\n"
        "    scoring_route:\n      port: 8501\n      path: /v1/models/digits:predict\n" + _SIZE,
        group=_SCRIPTS,
    ),
    _served(
        "MLflow model without a script",
        _DEPLOYMENT + _MLFLOW + _SIZE,
        group=_SCRIPTS,
        **{"model/MLmodel": _MLMODEL, "model/conda.yaml": "dependencies: [{pip: [mlflow, scikit-learn]}]\n"},
    ),
    _served(
        "MLflow model in an environment of the deployment's own",
        _DEPLOYMENT + _MLFLOW + "environment:\n  conda_file: ./conda.yaml\n" + _SIZE,
        group=_SCRIPTS,
        **{"model/MLmodel": _MLMODEL, "conda.yaml": "dependencies: [{pip: [mlflow, scikit-learn]}]\n"},
    ),
    _served(
        "MLflow model with the onnx flavour, which is served natively",
        _DEPLOYMENT + _MLFLOW + _SIZE,
        group=_SCRIPTS,
        **{"model/MLmodel": _MLMODEL + "  onnx: {data: digits.onnx}\n"},
    ),
    _served(
        "MLflow model whose folder has no MLmodel file",
        _DEPLOYMENT + _MLFLOW + _SIZE,
        group=_SCRIPTS,
    ),
    _served(
        "Triton repository",
        _DEPLOYMENT + _TRITON + _SIZE,
        group=_SCRIPTS,
        **{"models/densenet/1/model.onnx": "", "models/densenet/config.pbtxt": _CONFIG},
    ),
    _served(
        "Triton repository of a TensorRT plan",
        _DEPLOYMENT + _TRITON + _SIZE,
        group=_SCRIPTS,
        **{"models/densenet/1/model.plan": "", "models/densenet/config.pbtxt": 'platform: "tensorrt_plan"\n'},
    ),
    _served(
        "ONNX model in an image of one's own",
        _DEPLOYMENT + _MODEL + "environment: {build: {path: ./docker, dockerfile_path: Dockerfile}}\n" + _SIZE,
        group=_SCRIPTS,
        **{"docker/Dockerfile": "FROM scratch\n"},
    ),
    _served(
        "model mount path",
        _DEPLOYMENT + _MODEL + "model_mount_path: /var/models\n" + _SIZE,
        group=_SCRIPTS,
    ),
    Sample(
        what="registered model and environment, and a deployment that names them",
        group=_ASSETS,
        files={
            "model.yml": f"$schema: {_HOME}/model.schema.json\nname: digits-model\nversion: 1\ntype: custom_model\n"
            "path: model/digits.onnx\ndescription: reads digits\n",
            "environment.yml": f"$schema: {_HOME}/environment.schema.json\nname: digits-env\nversion: 1\n"
            "image: mcr.microsoft.com/azureml/inference\nconda_file: conda.yaml\n",
            "endpoint.yml": _ENDPOINT,
            "blue.yml": _DEPLOYMENT + "model: azureml:digits-model:1\nenvironment: azureml:digits-env:1\n" + _SIZE,
        },
        beside=_ONNX | {"conda.yaml": "name: digits\nchannels: [conda-forge]\ndependencies: [python=3.11]\n"},
    ),
    _served("latest version of a model", _DEPLOYMENT + "model: azureml:digits-model@latest\n" + _SIZE, group=_ASSETS),
    _served(
        "model by its ARM id",
        _DEPLOYMENT
        + "model: /subscriptions/SUB/resourceGroups/GROUP/providers/Microsoft.MachineLearningServices/workspaces/WORK"
        "/models/digits-model/versions/1\n" + _SIZE,
        group=_ASSETS,
    ),
    _served(
        "model of a registry",
        _DEPLOYMENT + "model: azureml://registries/azureml/models/digits-model/versions/1\n" + _SIZE,
        group=_ASSETS,
    ),
    _served("model reference without `azureml:`", _DEPLOYMENT + "model: digits-model:1\n" + _SIZE, group=_ASSETS),
    Sample(
        what="data assets: a file, a folder, a table",
        group=_ASSETS,
        files={
            "data.yml": "\n---\n".join(
                f"$schema: {_HOME}/data.schema.json\nname: scans-{kind}\nversion: '1'\ntype: {kind}\n"
                f"path: scans/{kind}\n"
                for kind in ("uri_file", "uri_folder", "mltable")
            )
        },
        beside={"scans/uri_file": "", "scans/uri_folder/a.txt": "", "scans/mltable/MLTable": ""},
    ),
    Sample(
        what="environment that is built from a Dockerfile",
        group=_ASSETS,
        files={
            "environment.yml": f"$schema: {_HOME}/environment.schema.json\nname: digits-env\nversion: 1\nbuild:\n"
            "  path: docker\n  dockerfile_path: Dockerfile\n"
        },
        beside={"docker/Dockerfile": "FROM python\n"},
    ),
    Sample(
        what="MLflow and Triton models, registered only",
        group=_ASSETS,
        files={
            "models.yml": "name: one\nversion: 1\ntype: mlflow_model\npath: model\n---\n"
            "name: two\nversion: 1\ntype: triton_model\npath: model\n"
        },
        beside=_ONNX,
    ),
    Sample(
        what="batch endpoint with a default deployment",
        group=_JOBS,
        files={"endpoint.yml": _BATCH + "defaults:\n  deployment_name: one\n"},
    ),
    Sample(
        what="model deployment with `settings`",
        group=_JOBS,
        files={
            "endpoint.yml": _BATCH,
            "one.yml": f"$schema: {_HOME}/modelBatchDeployment.schema.json\nname: one\nendpoint_name: scans\n"
            "type: model\nmodel:\n  path: ./model\ncode_configuration:\n  code: ./code\n  scoring_script: batch.py\n"
            "environment:\n  image: mcr.microsoft.com/azureml/openmpi\n  conda_file: conda.yaml\n"
            "compute: azureml:batch-cluster\nresources:\n  instance_count: 2\nsettings:\n"
            "  max_concurrency_per_instance: 2\n  mini_batch_size: 10\n  output_action: append_row\n"
            "  output_file_name: predictions.csv\n  retry_settings:\n    max_retries: 3\n    timeout: 30\n"
            "  error_threshold: -1\n  logging_level: info\n",
        },
        beside=_ONNX | {"code/batch.py": "", "conda.yaml": "dependencies: [python=3.11]\n"},
    ),
    Sample(
        what="older deployment with its settings at the root",
        group=_JOBS,
        files={
            "endpoint.yml": _BATCH,
            "one.yml": f"$schema: {_HOME}/batchDeployment.schema.json\nname: one\nendpoint_name: scans\n"
            "model: azureml:digits-model@latest\ncompute: azureml:batch-cluster\nresources:\n  instance_count: 1\n"
            "mini_batch_size: 10\noutput_action: append_row\noutput_file_name: predictions.csv\n"
            "max_concurrency_per_instance: 2\nretry_settings:\n  max_retries: 3\n  timeout: 300\n"
            "error_threshold: -1\nlogging_level: info\n",
        },
    ),
    Sample(
        what="pipeline component deployment",
        group=_JOBS,
        files={
            "endpoint.yml": _BATCH,
            "one.yml": f"$schema: {_HOME}/pipelineComponentBatchDeployment.schema.json\nname: one\n"
            "endpoint_name: scans\ntype: pipeline\ncomponent: azureml:prepare:1\nsettings:\n"
            "  default_compute: batch-cluster\n",
        },
    ),
    Sample(
        what="key as a batch endpoint's credential",
        group=_JOBS,
        files={"endpoint.yml": _BATCH.replace("aad_token", "key")},
    ),
    Sample(
        what="conda file beside an endpoint",
        group=_OTHER,
        files={
            "endpoint.yml": _ENDPOINT,
            "conda.yaml": "name: digits\nchannels: [conda-forge]\ndependencies:\n  - python=3.11\n  - pip:\n"
            "      - onnxruntime\n",
        },
    ),
    *(
        Sample(what=what, group=_OTHER, files={"file.yml": f"$schema: {_HOME}/{schema}.schema.json\nname: x\n"})
        for what, schema in (
            ("job", "commandJob"),
            ("component", "commandComponent"),
            ("compute", "amlCompute"),
            ("datastore", "azureBlob.datastore"),
            ("schedule", "schedule"),
        )
    ),
)


def outcome(sample: Sample) -> Outcome:
    """What `gateway check` says of the sample, in sentences without file names and lines."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        for path, text in (sample.files | sample.beside).items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text, encoding="utf-8")
        try:
            found = read_folder(root)
        except FolderError as error:
            return Outcome(reasons=tuple(_sentence(one, root) for one in error.problems))
        return Outcome(notes=tuple(_sentence(one, root) for one in found.notes))


@functools.cache
def page() -> str:
    """docs/azure-yaml.md"""
    parts = [_HEAD]
    for group in dict.fromkeys(sample.group for sample in SAMPLES):
        rows = [f"| {one.what} | {outcome(one).text} |" for one in SAMPLES if one.group == group]
        parts.append("\n".join([f"## {group}", "", "| sample | what becomes of it |", "|---|---|", *rows]) + "\n")
    return "\n".join(parts)


def _sentence(text: str, root: Path) -> str:
    """Without the file and line that it begins with, and without the folder of the test."""
    text = text.replace(f"{root}/", "").replace(str(root), "the folder").replace(NOTED[0].lower() + NOTED[1:], "")
    return re.sub(r"^[\w./-]+\.ya?ml(?: \(document \d+\))?:(?:\d+:)? ?", "", text).replace("|", "\\|")


_HEAD = """# Azure's YAML here

<!-- Made by `python -m tests.support.reference`; edit the samples, not this file. -->

Files in the forms that the documentation of Azure Machine Learning shows, and what `gateway check` says of each. A
key is never silently ignored: what has no effect is named, what cannot be done is refused with its reason. All keys
are in [the reference](reference/yaml.md).
"""
