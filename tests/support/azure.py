"""The real Azure SDK, unmodified, pointed at a gateway of a test; and what it is told to deploy.

Why here: the clients read the certificate to trust from the process's environment and keep state of a whole process
(clouds by their name, headers of requests); this is put back, so that one test does not feel another.
The packages are optional and take two seconds to import: nothing here imports them before a client is made, and
where they are not installed the test is skipped by their name.
"""

from __future__ import annotations

import gc
import os
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pytest
from onnx import TensorProto, helper

from runtimes.tensor import Datatype
from tests.support.models import build, value, weights
from tests.support.process import GatewayProcess

# A gateway is one workspace: any names are taken, and come back in ids.
SUBSCRIPTION, GROUP, WORKSPACE = "sub", "group", "workspace"
WORKSPACE_ID = (
    f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}"
    f"/providers/Microsoft.MachineLearningServices/workspaces/{WORKSPACE}"
)
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
DIGITS = EXAMPLES / "digits"
REQUEST = DIGITS / "sample-request.json"

_POINTERS = ("AZUREML_DEV_URL_MFE", "ARM_CLOUD_METADATA_URL")


class Sdk(NamedTuple):
    """A client of one gateway and the modules that its user would import from."""

    ml: Any
    ai: ModuleType
    e: ModuleType
    errors: ModuleType


class Bearer:
    """A credential as the SDK wants one: the management token, whatever it is asked for."""

    def __init__(self, token: str) -> None:
        self._token = token

    def get_token(self, *_: str, **__: Any) -> Any:
        from azure.core.credentials import AccessToken

        return AccessToken(self._token, int(time.time()) + 3600)


def management_token(gateway: GatewayProcess) -> str:
    return (gateway.state / "management.token").read_text().strip()


@contextmanager
def trusting(gateway: GatewayProcess) -> Iterator[None]:
    """This process trusts the gateway's CA, and is pointed nowhere by its environment."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REQUESTS_CA_BUNDLE", gateway.urls["ca"])
        # The SDK sets this one itself, and it would outlive the block.
        patch.setenv("AZUREML_CURRENT_CLOUD", "AzureCloud")
        for name in _POINTERS:
            patch.delenv(name, raising=False)
        yield
        with warnings.catch_warnings():
            # The SDK leaves connections to the collector.
            warnings.simplefilter("ignore")
            gc.collect()


def sdk(gateway: GatewayProcess, *, token: str = "", **options: Any) -> Sdk:
    """azure-ai-ml, pointed by its `cloud_metadata`. `options` are the client's own."""
    ai = pytest.importorskip("azure.ai.ml", reason="azure-ai-ml is not installed")
    import azure.ai.ml.entities
    import azure.core.exceptions

    url = gateway.urls["management"]
    names = ("azure_portal", "resource_manager", "active_directory", "aml_resource_id", "registry_discovery_endpoint")
    ml = ai.MLClient(
        Bearer(token or management_token(gateway)),
        *(SUBSCRIPTION, GROUP, WORKSPACE),
        # A name of its own: what is known of a cloud is kept by its name for as long as the process lives.
        cloud=f"gateway at {url}",
        cloud_metadata={**dict.fromkeys(names, url), "storage_endpoint": "core.windows.net"},
        enable_telemetry=False,
        show_progress=False,
        **options,
    )
    return Sdk(ml, ai, azure.ai.ml.entities, azure.core.exceptions)


def forget_deployment() -> None:
    """After `invoke(deployment_name=...)` the SDK names that deployment in every later request of the process."""
    from azure.ai.ml.constants._endpoint import EndpointInvokeFields

    EndpointInvokeFields.DEFAULT_HEADER.pop(EndpointInvokeFields.MODEL_DEPLOYMENT, None)


def endpoint(sdk: Sdk, name: str, **more: Any) -> Any:
    """An endpoint that is there when this returns."""
    entity = sdk.e.ManagedOnlineEndpoint(name=name, **{"auth_mode": "key", **more})
    return sdk.ml.online_endpoints.begin_create_or_update(entity).result()


def deployment(sdk: Sdk, endpoint_name: str, name: str, model: Path | str, **more: Any) -> Any:
    """A deployment as it is described, not yet sent. `model` is a file, or a registered model's name and version."""
    given = sdk.e.Model(path=str(model)) if isinstance(model, Path) else model
    fields = {"instance_type": "Standard_DS3_v2", "instance_count": 1, **more}
    return sdk.e.ManagedOnlineDeployment(name=name, endpoint_name=endpoint_name, model=given, **fields)


def deployed(sdk: Sdk, endpoint_name: str, name: str, model: Path | str, **more: Any) -> Any:
    """A deployment that serves when this returns."""
    entity = deployment(sdk, endpoint_name, name, model, **more)
    return sdk.ml.online_deployments.begin_create_or_update(entity).result()


def environment_of(gateway: GatewayProcess, **more: str) -> Mapping[str, str]:
    """For a program that uses the SDK in a process of its own."""
    clean = {
        name: text
        for name, text in os.environ.items()
        if name not in ("AZUREML_CURRENT_CLOUD", *_POINTERS) and not name.startswith("GATEWAY_")
    }
    ours = {
        "GATEWAY_TOKEN": management_token(gateway),
        "REQUESTS_CA_BUNDLE": gateway.urls["ca"],
        # Its syntax warnings, as its modules are compiled, are not ours.
        "PYTHONWARNINGS": "ignore",
    }
    return {**clean, **ours, **more}


PYTHON = sys.executable


def long_to_load(trips: int = 25_000) -> bytes:
    """y = x, FP32 [N, 2], after some 0.1 s of sines: seconds until a load has run all its samples."""
    nothing = TensorProto.FLOAT, None
    body = helper.make_graph(
        [helper.make_node("Sin", ["burnt"], ["burnt_on"]), helper.make_node("Identity", ["go"], ["go_on"])],
        "body",
        [
            helper.make_tensor_value_info("trip", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("burnt", *nothing),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("burnt_on", *nothing),
        ],
    )
    nodes = [
        helper.make_node("Loop", ["trips", "", "start"], ["end"], body=body),
        helper.make_node("ReduceSum", ["end"], ["sum"], keepdims=0),
        helper.make_node("Mul", ["sum", "none"], ["zero"]),
        helper.make_node("Add", ["x", "zero"], ["y"]),
    ]
    inits = [
        weights("trips", np.array(trips, np.int64)),
        weights("start", np.ones(2048, np.float32)),
        weights("none", np.array(0, np.float32)),
    ]
    shape = ("N", 2)
    return build(nodes, [value("x", Datatype.FP32, shape)], [value("y", Datatype.FP32, shape)], inits)
