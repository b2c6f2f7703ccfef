"""The three ways to point the SDK at a gateway, each by a program that a user would run, as the guide prints it."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping

import pytest

from tests.support.azure import EXAMPLES, PYTHON, Bearer, environment_of, management_token, trusting
from tests.support.azure import sdk as client
from tests.support.process import GatewayProcess

# The SDK and what it needs warn about each other; the gateway is another process.
pytestmark = pytest.mark.filterwarnings("ignore")

ROOT = EXAMPLES.parent
SCRIPT = EXAMPLES / "azure-sdk" / "deploy.py"
GUIDE = ROOT / "docs" / "azure-sdk.md"


def run(*command: str, environment: Mapping[str, str]) -> str:
    """What it prints; a failure shows what it said."""
    pytest.importorskip("azure.core", reason="azure-ai-ml is not installed")
    done = subprocess.run(
        [PYTHON, *command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
        cwd=ROOT,
        env=dict(environment),
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def clouds_of(gateway: GatewayProcess) -> str:
    return f"{gateway.urls['management']}/metadata/endpoints?api-version=2019-05-01"


def printed_programs() -> list[str]:
    """The guide's programs, as they stand in it: the first steps, and `cloud_metadata`."""
    return re.findall(r"^```python\n(.*?)^```$", GUIDE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def test_the_example_needs_nothing_but_its_environment(gateway: GatewayProcess) -> None:
    pointed = environment_of(gateway, AZUREML_DEV_URL_MFE=gateway.urls["management"])
    lines = run(str(SCRIPT), environment=pointed).splitlines()
    assert '"label":[1,4,5,6,9]' in lines[0]
    assert '"label":[1,4,5,6,9]' in lines[1]
    scoring = f"{gateway.urls['scoring']}/endpoints/digits-by-sdk/score"
    assert lines[2] == f"serves: {scoring} {{'green': 100}}"


def test_the_first_steps_work_as_printed_in_a_cloud_that_tells_of_itself(gateway: GatewayProcess) -> None:
    first, _ = printed_programs()
    printed = run("-c", first, environment=environment_of(gateway, ARM_CLOUD_METADATA_URL=clouds_of(gateway)))
    assert '"label":[1,4,5,6,9]' in printed


def test_the_other_program_of_the_guide_works_as_printed(gateway: GatewayProcess) -> None:
    _, second = printed_programs()
    printed = run("-c", second, environment=environment_of(gateway, GATEWAY_URL=gateway.urls["management"]))
    assert printed.startswith("[")


def test_a_cloud_is_also_found_by_its_name(gateway: GatewayProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    ai = pytest.importorskip("azure.ai.ml", reason="azure-ai-ml is not installed")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", gateway.urls["ca"])
    monkeypatch.setenv("ARM_CLOUD_METADATA_URL", clouds_of(gateway))
    monkeypatch.setenv("AZUREML_CURRENT_CLOUD", "InferenceGateway")
    ml = ai.MLClient(Bearer(management_token(gateway)), "any", "any", "any")
    assert isinstance([one.name for one in ml.online_endpoints.list()], list)


def test_a_certificate_that_is_not_trusted_is_no_way_in(gateway: GatewayProcess) -> None:
    ai = pytest.importorskip("azure.core.exceptions", reason="azure-ai-ml is not installed")
    with trusting(gateway), pytest.MonkeyPatch.context() as patch:
        patch.delenv("REQUESTS_CA_BUNDLE")
        stranger = client(gateway, retry_total=0)
        with pytest.raises(ai.ServiceRequestError, match="CERTIFICATE_VERIFY_FAILED"):
            list(stranger.ml.online_endpoints.list())
