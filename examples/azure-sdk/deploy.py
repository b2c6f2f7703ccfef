"""Azure ML's own Python SDK, unmodified, against an Inference Gateway: blue serves, green is tried and takes over.

Nothing here names the gateway. The environment does: AZUREML_DEV_URL_MFE (its management URL), REQUESTS_CA_BUNDLE
(the CA to trust) and GATEWAY_TOKEN (a management token). Without the first, the same lines deploy to Azure, given a
credential of azure-identity and a workspace. README.md beside this file has the commands.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from azure.ai.ml import MLClient
from azure.ai.ml.entities import ManagedOnlineDeployment, ManagedOnlineEndpoint, Model
from azure.core.credentials import AccessToken

DIGITS = Path(__file__).resolve().parents[1] / "digits"
REQUEST = str(DIGITS / "sample-request.json")
ENDPOINT = "digits-by-sdk"


class ManagementToken:
    """A credential as the SDK wants one."""

    def get_token(self, *scopes: str, **options: Any) -> AccessToken:
        return AccessToken(os.environ["GATEWAY_TOKEN"], int(time.time()) + 3600)


def main() -> None:
    # A gateway is one workspace: any three names will do.
    ml = MLClient(ManagementToken(), "subscription", "group", "workspace")

    ml.online_endpoints.begin_create_or_update(ManagedOnlineEndpoint(name=ENDPOINT, auth_mode="key")).result()
    deploy(ml, "blue")
    send_traffic(ml, {"blue": 100})
    print("blue: ", ml.online_endpoints.invoke(ENDPOINT, request_file=REQUEST))

    deploy(ml, "green")
    print("green:", ml.online_endpoints.invoke(ENDPOINT, deployment_name="green", request_file=REQUEST))
    send_traffic(ml, {"green": 100})
    ml.online_deployments.begin_delete("blue", ENDPOINT).result()

    endpoint = ml.online_endpoints.get(ENDPOINT)
    print("serves:", endpoint.scoring_uri, endpoint.traffic)


def deploy(ml: MLClient, name: str) -> None:
    """Upload the model and serve it; the endpoint's traffic stays where it is."""
    deployment = ManagedOnlineDeployment(
        name=name,
        endpoint_name=ENDPOINT,
        model=Model(path=str(DIGITS / name / "model.onnx")),
        instance_type="Standard_DS3_v2",
        instance_count=1,
    )
    ml.online_deployments.begin_create_or_update(deployment).result()


def send_traffic(ml: MLClient, traffic: dict[str, int]) -> None:
    endpoint = ml.online_endpoints.get(ENDPOINT)
    endpoint.traffic = traffic
    ml.online_endpoints.begin_create_or_update(endpoint).result()


if __name__ == "__main__":
    main()
