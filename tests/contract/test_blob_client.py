"""The real azure-storage-blob client against the real listener, over TLS: what azure-ai-ml does with it, and more.

The client is as it is installed; it is told where to go as azure-ai-ml tells it.
"""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from gateway.controlplane.blobs.storage import BlobLimits
from tests.support.blob_server import Served, served
from tests.support.waiting import eventually

pytest.importorskip("azure.storage.blob", reason="azure-storage-blob comes with the extra 'examples'")
from azure.core import MatchConditions
from azure.core.exceptions import (
    ClientAuthenticationError,
    HttpResponseError,
    ResourceExistsError,
    ResourceModifiedError,
    ResourceNotFoundError,
)
from azure.storage.blob import BlobServiceClient, ContainerClient, ContentSettings

LIMITS = BlobLimits(assets_max_bytes=1 << 26, upload_max_bytes=600_000, disk_reserve_bytes=0)
SMALL = {"max_single_put_size": 50_000, "max_block_size": 40_000, "retry_total": 0}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("blobs"), LIMITS) as running:
        yield running


@pytest.fixture
def container(gateway: Served) -> Iterator[Any]:
    """The default datastore, reached as azure-ai-ml does with the account name that the gateway gives it."""
    url = f"https://{gateway.host}/blob/a.blob.core.windows.net"
    with BlobServiceClient(
        account_url=url, credential=gateway.signed(permissions="racwl"), connection_verify=str(gateway.ca), **SMALL
    ) as service:
        yield service.get_container_client("azureml")


def test_a_folder_is_uploaded_as_azure_ai_ml_does(container: Any) -> None:
    first = container.get_blob_client("LocalUpload/0a/model/digits v1.onnx")
    with pytest.raises(ResourceNotFoundError) as missing:
        first.get_blob_properties()
    assert missing.value.error_code == "BlobNotFound"
    for name in ("digits v1.onnx", "labels/ä.txt"):
        container.upload_blob(
            name=f"LocalUpload/0a/model/{name}", data=name.encode(), validate_content=True, overwrite=False
        )
    first.set_blob_metadata({"upload_status": "completed", "name": "digits", "version": "1"})
    properties = first.get_blob_properties()
    assert properties.metadata == {"upload_status": "completed", "name": "digits", "version": "1"}
    assert properties.size == len("digits v1.onnx")
    assert properties.blob_type == "BlockBlob"
    found = container.list_blobs(name_starts_with="LocalUpload/0a", include="metadata")
    assert [(blob.name, (blob.metadata or {}).get("name")) for blob in found] == [
        ("LocalUpload/0a/model/digits v1.onnx", "digits"),
        ("LocalUpload/0a/model/labels/ä.txt", None),
    ]
    assert first.download_blob(validate_content=True).readall() == b"digits v1.onnx"


@pytest.mark.parametrize("validate", [False, True])
@pytest.mark.parametrize("size", [0, 1, 50_000, 50_001, 399_999])
def test_any_size_goes_there_and_back(container: Any, size: int, validate: bool) -> None:
    data = os.urandom(size)
    blob = container.get_blob_client(f"sizes/{validate}/{size}")
    result = blob.upload_blob(data, validate_content=validate, overwrite=True, max_concurrency=3)
    assert blob.get_blob_properties().etag == result["etag"]
    assert blob.download_blob(validate_content=validate, max_concurrency=3).readall() == data


def test_a_file_is_read_in_parts(gateway: Served) -> None:
    data = os.urandom(200_000)
    url = f"{gateway.url}/a"
    with BlobServiceClient(
        url, gateway.signed(), connection_verify=str(gateway.ca), max_single_get_size=30_000,
        max_chunk_get_size=30_000, retry_total=0,
    ) as service:  # fmt: skip
        blob = service.get_blob_client("azureml", "parts/x")
        blob.upload_blob(data)
        assert blob.download_blob().readall() == data
        assert blob.download_blob(offset=100, length=50).readall() == data[100:150]
        assert blob.download_blob(offset=199_990).readall() == data[199_990:]
        with pytest.raises(HttpResponseError) as refused:
            blob.download_blob(offset=200_000, length=5)
        assert refused.value.status_code == 416
        blob.delete_blob()
        assert not blob.exists()


def test_an_upload_reference_alone_is_enough(gateway: Served) -> None:
    """As startPendingUpload gives it for code: a container's address with its signature."""
    name = "upload-0123456789abcdef"
    signed = gateway.signed(name, permissions="racwl")
    with ContainerClient.from_container_url(
        f"{gateway.url}/a/{name}?{signed}", connection_verify=str(gateway.ca), retry_total=0
    ) as code:
        assert code.exists()
        code.upload_blob("src/score.py", b"def run(): ...", validate_content=True)
        assert [blob.name for blob in code.list_blobs()] == ["src/score.py"]
    with (
        ContainerClient.from_container_url(
            f"{gateway.url}/a/upload-fedcba9876543210?{signed}", connection_verify=str(gateway.ca), retry_total=0
        ) as other,
        pytest.raises(ClientAuthenticationError),
    ):
        other.upload_blob("src/score.py", b"")


def test_a_signature_for_a_folder_is_kept_by_the_client(gateway: Served, container: Any) -> None:
    container.upload_blob("azureml/job1/score/predictions.csv", b"1", overwrite=True)
    signed = gateway.signed("azureml", "azureml/job1/score", "rl")
    with ContainerClient.from_container_url(
        f"{gateway.url}/azureml?{signed}", connection_verify=str(gateway.ca), retry_total=0
    ) as reader:
        names = [blob.name for blob in reader.list_blobs(name_starts_with="azureml/job1/score/")]
        assert names == ["azureml/job1/score/predictions.csv"]
        assert reader.download_blob(names[0]).readall() == b"1"
        with pytest.raises(ClientAuthenticationError):
            reader.download_blob("LocalUpload/0a/model/labels/x")
        with pytest.raises(HttpResponseError) as refused:
            reader.upload_blob(names[0], b"2", overwrite=True)
        assert refused.value.error_code == "AuthorizationPermissionMismatch"


def test_folders_are_walked_page_by_page(container: Any) -> None:
    """As jobs.download does: is it a blob, is it a folder, which files does it have."""
    for name in ("a.csv", "b/c.csv", "b/d.csv", "e.csv"):
        container.upload_blob(f"walk/{name}", b"x", overwrite=True)
    assert not container.get_blob_client("walk/").exists()
    assert not container.get_blob_client("walk").exists()
    walked = [item.name for item in container.walk_blobs(name_starts_with="walk/", delimiter="/")]
    # The client gives the folders of a page before its blobs.
    assert walked == ["walk/b/", "walk/a.csv", "walk/e.csv"]
    pages = container.list_blobs(name_starts_with="walk/", results_per_page=3).by_page()
    assert [[blob.name for blob in page] for page in pages] == [
        ["walk/a.csv", "walk/b/c.csv", "walk/b/d.csv"], ["walk/e.csv"]
    ]  # fmt: skip


def test_what_is_there_is_not_replaced_unless_asked(container: Any) -> None:
    blob = container.get_blob_client("once/x")
    blob.upload_blob(b"one")
    for data in (b"two", b"2" * 60_000):
        with pytest.raises(ResourceExistsError) as refused:
            blob.upload_blob(data)
        assert refused.value.error_code == "BlobAlreadyExists"
    etag = blob.upload_blob(b"three", overwrite=True)["etag"]
    blob.set_blob_metadata({"changed": "yes"})
    with pytest.raises(ResourceModifiedError):
        blob.set_blob_metadata({"changed": "no"}, etag=etag, match_condition=MatchConditions.IfNotModified)
    assert blob.download_blob().readall() == b"three"


def test_the_type_of_content_and_text_come_back(container: Any) -> None:
    blob = container.get_blob_client("typed/x.json")
    settings = ContentSettings(content_type="application/json")
    blob.upload_blob('{"ä": 1}', overwrite=True, content_settings=settings, metadata={"a": "b"})
    properties = blob.get_blob_properties()
    assert properties.content_settings.content_type == "application/json"
    assert properties.content_settings.content_md5 is not None
    assert properties.metadata == {"a": "b"}
    assert blob.download_blob(encoding="utf-8").readall() == '{"ä": 1}'


def test_many_clients_put_one_name_and_never_mix(container: Any) -> None:
    def put(number: int) -> None:
        container.upload_blob("race/x", bytes([number]) * 45_000, overwrite=True)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(put, range(16)))
    data = container.download_blob("race/x").readall()
    assert len(data) == 45_000
    assert len(set(data)) == 1


def test_what_is_too_large_is_told_before_it_was_sent_twice(container: Any) -> None:
    with pytest.raises(HttpResponseError) as refused:
        container.upload_blob("large/x", b"x" * 650_000)
    assert refused.value.status_code == 413
    assert refused.value.error_code == "RequestBodyTooLarge"
    assert not container.get_blob_client("large/x").exists()


@pytest.mark.filterwarnings("ignore::DeprecationWarning:azure")
def test_azure_ai_ml_uploads_and_downloads(gateway: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage_helper = pytest.importorskip(
        "azure.ai.ml._artifacts._blob_storage_helper", reason="azure-ai-ml comes with the extra 'examples'"
    )
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(gateway.ca))
    model = tmp_path / "digits"
    (model / "deep").mkdir(parents=True)
    (model / "model.onnx").write_bytes(os.urandom(70_000))
    (model / "deep" / "labels.txt").write_text("zero\n")
    # The datastore's account name is the address of the gateway, so that this is where the client goes.
    account_url = f"https://{gateway.host}/blob/a.blob.core.windows.net"
    client = storage_helper.BlobStorageClient(
        credential=gateway.signed(permissions="racwl"), account_url=account_url, container_name="azureml"
    )
    made = client.upload(str(model), "digits", "1", asset_hash="0b" * 16, show_progress=False)
    assert made["remote path"] == f"LocalUpload/{'0b' * 16}/digits"
    again = storage_helper.BlobStorageClient(
        credential=gateway.signed(permissions="racwl"), account_url=account_url, container_name="azureml"
    )
    found = again.upload(str(model), "other", "2", asset_hash="0b" * 16, show_progress=False)
    assert (found["name"], found["version"]) == ("digits", "1")
    assert again.exists(f"LocalUpload/{'0b' * 16}/digits")
    assert not again.exists(f"LocalUpload/{'0c' * 16}/digits")
    again.download(f"LocalUpload/{'0b' * 16}/digits", destination=tmp_path / "copy")
    for path in ("model.onnx", "deep/labels.txt"):
        assert (tmp_path / "copy" / path).read_bytes() == (model / path).read_bytes()


def test_an_upload_that_stops_half_way_leaves_nothing(tmp_path: Path) -> None:
    with served(tmp_path) as gateway:
        host, _, port = gateway.host.partition(":")
        head = (
            f"PUT /blob/a/azureml/half/x?{gateway.signed()} HTTP/1.1\r\nHost: {gateway.host}\r\n"
            "x-ms-blob-type: BlockBlob\r\nContent-Length: 400000\r\n\r\n"
        )
        context = ssl.create_default_context(cafile=str(gateway.ca))
        server = gateway.server
        for piece in (b"", b"x", b"x" * 300_000):
            raw = socket.create_connection((host, int(port)), timeout=10)
            with context.wrap_socket(raw, server_hostname=host) as connection:
                connection.sendall(head.encode() + piece)
                eventually(lambda: gateway.shop.on_disk() != [], "the upload has begun")
            eventually(lambda: not server.connections and not server.edge.tasks, "the connection is gone")
        assert gateway.shop.on_disk() == []
        assert gateway.shop.memory.kept == {}


def test_a_reader_who_hangs_up_leaves_no_file_open(tmp_path: Path) -> None:
    limits = BlobLimits(assets_max_bytes=1 << 26, disk_reserve_bytes=0)
    with served(tmp_path, limits) as gateway:
        host, _, port = gateway.host.partition(":")
        before = _open_files()
        url = f"{gateway.url}/azureml?{gateway.signed()}"
        with ContainerClient.from_container_url(url, connection_verify=str(gateway.ca), retry_total=0) as container:
            container.upload_blob("x", bytes(1 << 24))
        head = f"GET /blob/azureml/x?{gateway.signed()} HTTP/1.1\r\nHost: {gateway.host}\r\n\r\n"
        context = ssl.create_default_context(cafile=str(gateway.ca))
        server = gateway.server
        for _ in range(5):
            raw = socket.create_connection((host, int(port)), timeout=10)
            with context.wrap_socket(raw, server_hostname=host) as connection:
                connection.sendall(head.encode())
                assert connection.recv(15) == b"HTTP/1.1 200 OK"
        eventually(lambda: not server.connections and not server.edge.tasks, "the connections are gone")
        eventually(lambda: _open_files() == before, "the files are closed")


def _open_files() -> int:
    """How many files of assets this process has open."""
    found = 0
    for link in Path("/proc/self/fd").iterdir():
        try:
            found += "/assets/" in str(link.readlink())
        except FileNotFoundError:
            # Closed while we looked.
            continue
    return found
