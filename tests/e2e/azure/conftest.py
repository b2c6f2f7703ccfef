"""What the tests of the Azure SDK share: a gateway that was given no folder, and a client for each module.

Every test makes endpoints of its own names, so that they may run in any order.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.azure import Sdk, forget_deployment, trusting
from tests.support.azure import sdk as client
from tests.support.process import GatewayProcess


@pytest.fixture(scope="session")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """All that it serves comes by REST."""
    with GatewayProcess(None, tmp_path_factory.mktemp("azure") / "state") as process:
        yield process


@pytest.fixture(scope="module")
def trust(gateway: GatewayProcess) -> Iterator[None]:
    with trusting(gateway):
        yield


@pytest.fixture(scope="module")
def shared_sdk(gateway: GatewayProcess, trust: None) -> Sdk:
    return client(gateway)


@pytest.fixture
def sdk(shared_sdk: Sdk) -> Sdk:
    """azure-ai-ml, without what an earlier invoke left in the process."""
    forget_deployment()
    return shared_sdk


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A file that is called a model and is none."""
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"no model at all")
    return path
