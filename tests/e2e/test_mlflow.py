"""MLflow models without a scoring script, by the real mlflow in an environment that the gateway builds for them.

The slow file of MLflow: pip is run once, for an environment that all models share. First a model that was written by
hand is served, so that there is an interpreter with mlflow to save the others with, as users do. Where the packages
cannot be had, the tests are skipped and say so.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tests.support.azure import endpoint as sdk_endpoint
from tests.support.azure import forget_deployment, trusting
from tests.support.azure import sdk as client
from tests.support.process import GatewayProcess, endpoint_yaml, write_folder
from tests.support.script_worker import Worker, value_of

# Of the first test pip's time, too.
pytestmark = pytest.mark.timeout(300)

MAKER = Path(__file__).parents[1] / "support" / "mlflow_models.py"
SEED = {
    "MLmodel": """
flavors:
  python_function:
    loader_module: seed_loader
    code: code
    data: data
    env: {virtualenv: python_env.yaml}
""",
    "code/seed_loader.py": """
import pathlib


class Model:
    def __init__(self, added):
        self.added = added

    def predict(self, rows):
        return [sum(row) + self.added for row in rows]


def _load_pyfunc(path):
    return Model(float((pathlib.Path(path) / "added.txt").read_text()))
""",
    "data/added.txt": "0.5",
    "python_env.yaml": """
python: "3"
build_dependencies: [pip, setuptools, wheel]
dependencies: [-r requirements.txt]
""",
    "requirements.txt": "scikit-learn\npandas\n",
}
# What the seed's files come to, and the same as in mlflow_models.py.
CONDA = {"dependencies": ["python=3", {"pip": ["scikit-learn", "pandas", "mlflow-skinny"]}]}
SCRIPT = """
import os
from pathlib import Path


def init():
    pass


def run(raw):
    return sorted(one.name for one in (Path(os.environ["AZUREML_MODEL_DIR"]) / "iris").iterdir())
"""


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Whether packages can be had at all."""
    place = str(tmp_path_factory.mktemp("wheels"))
    options = ("--quiet", "--no-deps", "--only-binary", ":all:", "--retries", "1", "--dest", place)
    wanted = [sys.executable, "-m", "pip", "download", *options, "mlflow-skinny"]
    found = subprocess.run(wanted, capture_output=True, text=True, check=False)
    if found.returncode:
        pytest.skip(f"mlflow-skinny cannot be had: {found.stderr.strip().splitlines()[-1:]}")


def mlflow_yaml(name: str, **more: Any) -> str:
    fields: dict[str, Any] = {
        "name": name,
        "endpoint_name": "flows",
        "instance_type": "cpu",
        "model": {"path": f"./{name}", "type": "mlflow_model"},
        "request_settings": {"request_timeout_ms": 30_000},
    }
    return json.dumps({**fields, **more})


def apply(gateway: GatewayProcess, files: dict[str, str]) -> str:
    assert gateway.folder is not None
    write_folder(gateway.folder, files)
    done = gateway.run("apply", "-f", str(gateway.folder), timeout_s=300)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def gateway(index: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """Serves the seed."""
    place = tmp_path_factory.mktemp("mlflow")
    folder = write_folder(place / "models", {"endpoint.yml": endpoint_yaml("flows")})
    # Compiled when it is imported, and not all of it: pip reads a "0" here as "do not compile".
    with GatewayProcess(folder, place / "state", environment={"PIP_NO_COMPILE": "0"}) as process:
        apply(process, {"seed.yml": mlflow_yaml("seed"), **{f"seed/{name}": text for name, text in SEED.items()}})
        yield process


@pytest.fixture(scope="module")
def python(gateway: GatewayProcess) -> Path:
    """The interpreter of the one environment that there is."""
    (found,) = (gateway.state / "environments").iterdir()
    return found / "bin" / "python"


def make(command: list[str], here: Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, cwd=here, check=False, timeout=110)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def models(gateway: GatewayProcess, python: Path) -> Path:
    """The folder of the gateway with all models, saved by mlflow, and served."""
    assert gateway.folder is not None
    folder = gateway.folder
    make([str(python), str(MAKER), str(folder)], folder.parent)
    # What knows ONNX is here, and mlflow there.
    packages = next(python.parents[1].glob("lib/python3*/site-packages"))
    both = f"import runpy, sys; sys.path.append({str(packages)!r}); sys.argv = ['maker', {str(folder)!r}]; "
    run = f"runpy.run_path({str(MAKER)!r}, run_name='__main__')"
    make([sys.executable, "-c", both + run], folder.parent)
    said = apply(
        gateway,
        {
            "iris.yml": mlflow_yaml("iris"),
            "frames.yml": mlflow_yaml("frames", environment={"conda_file": CONDA}),
            "frames/conda.yaml": "dependencies: [{pip: [no-such-package-of-ours==1]}]\n",
            "onnx.yml": mlflow_yaml("onnx"),
            "code.yml": mlflow_yaml(
                "code",
                model={"path": "./iris", "type": "mlflow_model"},
                environment="local",
                code_configuration={"code": "./code", "scoring_script": "score.py"},
            ),
            "code/score.py": SCRIPT,
        },
    )
    assert "without effect" not in said
    return folder


def score(gateway: GatewayProcess, deployment: str, body: Any = None, **options: Any) -> httpx.Response:
    given = {"json": body} if body is not None else {}
    headers = {"azureml-model-deployment": deployment, **options.pop("headers", {})}
    with gateway.client("flows") as http:
        return http.post("/endpoints/flows/score", headers=headers, **given, **options)


def answered(reply: httpx.Response) -> Any:
    assert reply.status_code == 200, reply.text
    return reply.json()


def test_a_model_whose_files_name_no_mlflow_gets_it_and_the_log_says_so(gateway: GatewayProcess) -> None:
    assert answered(score(gateway, "seed", {"inputs": [[1, 2], [3, 4]]})) == [3.5, 7.5]
    assert "mlflow-skinny: added, for the environment names no mlflow" in gateway.log()


def forms() -> dict[str, Any]:
    def records(columns: list[str], rows: list[list[float]]) -> list[dict[str, float]]:
        return [dict(zip(columns, row, strict=True)) for row in rows]

    def named(columns: list[str], rows: list[list[float]]) -> dict[str, list[float]]:
        return {name: [row[at] for row in rows] for at, name in enumerate(columns)}

    def split(columns: list[str], rows: list[list[float]]) -> dict[str, Any]:
        return {"columns": columns, "index": list(range(len(rows))), "data": rows}

    return {
        "input_data split": lambda *given: {"input_data": split(*given)},
        "input_data rows": lambda columns, rows: {"input_data": rows},
        "input_data records": lambda *given: {"input_data": records(*given)},
        "input_data names": lambda *given: {"input_data": named(*given)},
        "empty params": lambda *given: {"input_data": split(*given), "params": {}},
        "dataframe_split": lambda *given: {"dataframe_split": split(*given)},
        "dataframe_records": lambda *given: {"dataframe_records": records(*given)},
        "instances": lambda *given: {"instances": records(*given)},
        "inputs": lambda *given: {"inputs": named(*given)},
    }


@pytest.mark.parametrize("form", list(forms()))
def test_every_form_is_predicted_as_the_model_itself_does(gateway: GatewayProcess, models: Path, form: str) -> None:
    rows = json.loads((models / "iris-rows.json").read_text())
    expected = json.loads((models / "iris-expected.json").read_text())
    assert answered(score(gateway, "iris", forms()[form](rows["columns"], rows["data"]))) == expected


def test_a_csv_is_predicted_too(gateway: GatewayProcess, models: Path) -> None:
    rows = json.loads((models / "iris-rows.json").read_text())
    expected = json.loads((models / "iris-expected.json").read_text())
    lines = [",".join(map(str, row)) for row in (rows["columns"], *rows["data"])]
    text = "\n".join(lines).encode()
    assert answered(score(gateway, "iris", content=text, headers={"content-type": "text/csv"})) == expected


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"rows": [[1, 2, 3, 4]]}, "the body has 'rows'; accepted: a JSON object with exactly one of input_data"),
        ({"input_data": [[1, 2, 3]]}, "row 0 has 3 values; the model takes 4"),
        ({"input_data": {"columns": ["a"], "data": [[1]]}}, "Model is missing inputs ['sepal length (cm)'"),
        ({"inputs": [[1, 2, 3, 4]], "instances": []}, "the body has 'inputs', 'instances'"),
        ({"dataframe_split": [1]}, "Dataframe split format must be a dictionary"),
    ],
)
def test_what_does_not_fit_is_the_callers_mistake(
    gateway: GatewayProcess, models: Path, body: Any, said: str
) -> None:
    reply = score(gateway, "iris", body)
    assert (reply.status_code, reply.headers["ms-azureml-model-error-statuscode"]) == (424, "400")
    assert said in reply.json()["message"]
    assert reply.headers["x-ms-run-function-failed"] == "False"


def test_another_type_of_content_is_not_supported(gateway: GatewayProcess, models: Path) -> None:
    reply = score(gateway, "iris", content=b"1", headers={"content-type": "application/x-parquet"})
    assert (reply.status_code, reply.headers["ms-azureml-model-error-statuscode"]) == (424, "415")


def test_frames_are_records_and_params_reach_the_model(gateway: GatewayProcess, models: Path) -> None:
    reply = score(gateway, "frames", {"input_data": {"columns": ["x"], "data": [[1.5], [None]]}})
    assert answered(reply) == [
        {"twice": 3.0, "when": "2026-01-31T12:00:00+00:00", "n": 0},
        {"twice": None, "when": None, "n": 1},
    ]
    assert reply.headers["x-gateway-nonfinite"] == "true"
    more = answered(score(gateway, "frames", {"inputs": {"x": [1.0]}, "params": {"times": 3}}))
    assert [one["n"] for one in more] == [0, 1, 2]
    wrong = score(gateway, "frames", {"inputs": {"x": [1.0]}, "params": {"times": "often"}})
    assert (wrong.status_code, wrong.headers["ms-azureml-model-error-statuscode"]) == (424, "400")


def test_a_failure_of_the_model_is_its_own_and_told_to_nobody(gateway: GatewayProcess, models: Path) -> None:
    reply = score(gateway, "frames", {"inputs": {"x": [1.0]}, "params": {"fails": True}})
    assert (reply.status_code, reply.headers["ms-azureml-model-error-statuscode"]) == (424, "500")
    assert "customer" not in reply.text
    assert reply.headers["x-ms-run-function-failed"] == "True"


def test_swagger_has_the_signature_and_the_saved_example(gateway: GatewayProcess, models: Path) -> None:
    with gateway.client("flows") as http:
        headers = {"azureml-model-deployment": "iris"}
        found = http.get("/endpoints/flows/swagger.json?version=3", headers=headers).json()["components"]["schemas"]
    columns = json.loads((models / "iris-rows.json").read_text())["columns"]
    taken = found["ServiceInput"]["properties"]["input_data"]["items"]
    assert list(taken["properties"]) == taken["required"] == columns
    assert found["ServiceInput"]["example"]["input_data"][0] == dict(zip(columns, (5.1, 3.5, 1.4, 0.2), strict=True))
    assert found["ServiceOutput"] == {"type": "array", "items": {"type": "integer"}}


def test_all_of_them_share_one_environment(gateway: GatewayProcess, models: Path) -> None:
    assert len(list((gateway.state / "environments").iterdir())) == 1


def test_an_environment_of_the_deployments_own_is_used_instead(gateway: GatewayProcess, models: Path) -> None:
    """What the model itself names could not be built."""
    assert "no-such-package" in (models / "frames" / "conda.yaml").read_text()
    assert answered(score(gateway, "frames", {"input_data": {"x": [2.0]}}))[0]["twice"] == 4.0


def test_with_code_it_is_an_ordinary_script_that_finds_its_model(gateway: GatewayProcess, models: Path) -> None:
    assert {"MLmodel", "conda.yaml", "model.pkl"} <= set(answered(score(gateway, "code", {})))


def test_an_onnx_flavour_is_served_natively_and_batched(gateway: GatewayProcess, models: Path) -> None:
    rows = json.loads((models / "onnx-rows.json").read_text())["data"]
    expected = json.loads((models / "onnx-expected.json").read_text())
    for name in ("input_data", "instances", "inputs"):
        assert answered(score(gateway, "onnx", {name: rows}))["label"] == expected
    split = {"dataframe_split": {"columns": ["a", "b", "c", "d"], "data": rows}}
    assert answered(score(gateway, "onnx", split))["label"] == expected
    v2 = {"inputs": [{"name": "X", "shape": [2, 4], "datatype": "FP32", "data": rows[0] + rows[1]}]}
    outputs = {one["name"]: one for one in answered(score(gateway, "onnx", v2))["outputs"]}
    assert outputs["label"]["data"] == expected[:2]
    shown = gateway.status()["endpoints"]["flows"]["deployments"]["onnx"]
    assert shown["batched"] is True


def test_named_tensors_keep_their_types(models: Path, python: Path) -> None:
    """The host alone: nothing of a tensor's way differs in the gateway."""
    body = {"image": [[[1, 2], [3, 4]], [[0, 0], [0, 1]]], "factor": [1, 10]}
    with Worker(models / "tensors", script="", python=str(python)) as worker:
        takes = json.loads(worker.event()["swagger"]["2"])["definitions"]["ServiceInput"]
        image = takes["properties"]["input_data"]["properties"]["image"]
        assert image["items"]["items"] == {"type": "array", "items": {"type": "number"}}
        for form in ("input_data", "inputs"):
            frame = worker.call(json.dumps({form: body}).encode(), headers={"content-type": "application/json"})
            assert (frame.head["status"], value_of(frame)) == (200, [10.0, 10.0]), worker.logged()
        wrong = worker.call(json.dumps({"inputs": {"image": [1]}}).encode())
        assert wrong.head["status"] == 400


@pytest.mark.filterwarnings("ignore")
def test_the_azure_sdk_registers_and_deploys_one(gateway: GatewayProcess, models: Path) -> None:
    rows = json.loads((models / "iris-rows.json").read_text())
    expected = json.loads((models / "iris-expected.json").read_text())
    with trusting(gateway):
        sdk = client(gateway)
        forget_deployment()
        model = sdk.e.Model(name="iris", version="1", type="mlflow_model", path=str(models / "iris"))
        assert sdk.ml.models.create_or_update(model).type == "mlflow_model"
        sdk_endpoint(sdk, "by-sdk")
        deployment = sdk.e.ManagedOnlineDeployment(
            name="blue", endpoint_name="by-sdk", model="azureml:iris:1", instance_type="Standard_DS3_v2"
        )
        assert sdk.ml.online_deployments.begin_create_or_update(deployment).result().provisioning_state == "Succeeded"
        request = models.parent / "request.json"
        request.write_text(json.dumps({"input_data": rows}))
        answer = sdk.ml.online_endpoints.invoke("by-sdk", deployment_name="blue", request_file=str(request))
        forget_deployment()
    assert np.array_equal(json.loads(answer), expected)
