"""Models, environments and data by azure-ai-ml: uploaded to the gateway's own storage, versioned, read back."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.azure import DIGITS, REQUEST, Sdk
from tests.support.process import GatewayProcess

# The SDK and what it needs warn about each other; the gateway is another process.
pytestmark = pytest.mark.filterwarnings("ignore")

BLUE, GREEN = (DIGITS / name / "model.onnx" for name in ("blue", "green"))


@pytest.fixture
def context(tmp_path: Path) -> Path:
    """A folder with a folder in it, and an empty file."""
    folder = tmp_path / "context"
    (folder / "inner").mkdir(parents=True)
    (folder / "Dockerfile").write_text("FROM scratch\n")
    (folder / "inner" / "empty.txt").write_text("")
    return folder


def test_a_model_gets_the_next_version_by_itself(sdk: Sdk) -> None:
    first = sdk.ml.models.create_or_update(sdk.e.Model(name="counted", path=str(BLUE), description="a forest"))
    second = sdk.ml.models.create_or_update(sdk.e.Model(name="counted", path=str(GREEN)))
    assert (first.version, second.version) == ("1", "2")
    assert {one.version for one in sdk.ml.models.list("counted")} == {"1", "2"}
    assert sdk.ml.models.get("counted", label="latest").version == "2"
    assert sdk.ml.models.get("counted", version="1").description == "a forest"
    assert "counted" in [one.name for one in sdk.ml.models.list()]


def test_a_models_bytes_come_back_as_they_were(sdk: Sdk, tmp_path: Path) -> None:
    sdk.ml.models.create_or_update(sdk.e.Model(name="fetched", version="1", path=str(BLUE)))
    sdk.ml.models.download("fetched", "1", download_path=str(tmp_path))
    assert (tmp_path / "fetched" / "model.onnx").read_bytes() == BLUE.read_bytes()


def test_a_version_keeps_its_content_and_changes_its_words(sdk: Sdk) -> None:
    sdk.ml.models.create_or_update(sdk.e.Model(name="fixed", version="7", path=str(BLUE)))
    with pytest.raises(sdk.errors.ResourceExistsError, match="registered with other content"):
        sdk.ml.models.create_or_update(sdk.e.Model(name="fixed", version="7", path=str(GREEN)))
    again = sdk.ml.models.get("fixed", version="7")
    again.description, again.tags = "reviewed", {"stage": "live"}
    sdk.ml.models.create_or_update(again)
    found = sdk.ml.models.get("fixed", version="7")
    assert (found.description, found.tags) == ("reviewed", {"stage": "live"})


def test_what_is_archived_is_listed_only_when_asked_for(sdk: Sdk) -> None:
    view = sdk.ai.constants.ListViewType
    sdk.ml.models.create_or_update(sdk.e.Model(name="old-one", version="1", path=str(BLUE)))
    sdk.ml.models.archive("old-one", "1")
    assert list(sdk.ml.models.list("old-one")) == []
    assert [one.version for one in sdk.ml.models.list("old-one", list_view_type=view.ARCHIVED_ONLY)] == ["1"]
    sdk.ml.models.restore("old-one", "1")
    assert [one.version for one in sdk.ml.models.list("old-one")] == ["1"]


def test_a_model_too_large_for_one_request_arrives_whole(sdk: Sdk, tmp_path: Path) -> None:
    folder = tmp_path / "large"
    folder.mkdir()
    (folder / "model.onnx").write_bytes(GREEN.read_bytes())
    # The SDK sends what is larger than 64 MiB in blocks.
    (folder / "notes.bin").write_bytes(bytes(range(251)) * (65 * 2**20 // 251))
    sdk.ml.models.create_or_update(sdk.e.Model(name="large", version="1", path=str(folder)))
    sdk.ml.models.download("large", "1", download_path=str(tmp_path / "back"))
    back = {path.name: path.read_bytes() for path in (tmp_path / "back").rglob("*") if path.is_file()}
    assert back == {path.name: path.read_bytes() for path in folder.iterdir()}


def test_an_environment_is_kept_with_its_conda_file(sdk: Sdk) -> None:
    conda = {"name": "scoring", "dependencies": ["python=3.10", {"pip": ["numpy"]}]}
    image = "mcr.microsoft.com/azureml/minimal"
    sdk.ml.environments.create_or_update(
        sdk.e.Environment(name="with-conda", version="3", image=image, conda_file=conda)
    )
    found = sdk.ml.environments.get("with-conda", version="3")
    assert (found.image, found.conda_file) == (image, conda)
    later = sdk.ml.environments.create_or_update(sdk.e.Environment(name="with-conda", image=image))
    assert later.version == "4"
    assert {one.version for one in sdk.ml.environments.list("with-conda")} == {"3", "4"}


def test_a_build_context_is_uploaded(sdk: Sdk, gateway: GatewayProcess, context: Path) -> None:
    entity = sdk.e.Environment(name="built", version="1", build=sdk.e.BuildContext(path=str(context)))
    build = sdk.ml.environments.create_or_update(entity).build
    assert build.path.startswith(f"{gateway.urls['management']}/blob/azureml/LocalUpload/")
    assert build.dockerfile_path == "Dockerfile"


def test_data_is_a_file_or_a_folder(sdk: Sdk, context: Path) -> None:
    kinds = sdk.ai.constants.AssetTypes
    folder = sdk.ml.data.create_or_update(sdk.e.Data(name="rows", version="1", path=str(context), type="uri_folder"))
    file = sdk.ml.data.create_or_update(sdk.e.Data(name="rows", path=str(REQUEST), type=kinds.URI_FILE))
    assert (folder.version, file.version) == ("1", "2")
    assert file.path.endswith("/sample-request.json")
    assert {one.version: one.type for one in sdk.ml.data.list("rows")} == {"1": "uri_folder", "2": "uri_file"}


def test_the_workspace_and_its_datastore_are_there(sdk: Sdk, gateway: GatewayProcess) -> None:
    assert sdk.ml.workspaces.get(sdk.ml.workspace_name).discovery_url.startswith(gateway.urls["management"])
    assert [one.name for one in sdk.ml.datastores.list()] == ["workspaceblobstore"]
    assert sdk.ml.datastores.get_default().name == "workspaceblobstore"
