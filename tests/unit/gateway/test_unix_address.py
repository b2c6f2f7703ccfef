"""The address of a Unix socket in a folder of any depth."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from gateway.unix_address import ADDRESS_BYTES_MAX, unix_address


def test_a_short_path_is_its_own_address(tmp_path: Path) -> None:
    with unix_address(Path("/run/gateway/control.sock")) as address:
        assert address == "/run/gateway/control.sock"


@pytest.mark.parametrize("extra", [0, 1, 100])
def test_a_socket_can_be_bound_and_reached_at_any_depth(tmp_path: Path, extra: int) -> None:
    wanted = ADDRESS_BYTES_MAX + extra - len("/s")
    folder = tmp_path / ("d" * (wanted - len(str(tmp_path)) - 1))
    folder.mkdir()
    path = folder / "s"
    assert len(str(path)) == ADDRESS_BYTES_MAX + extra
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        with unix_address(path) as address:
            server.bind(address)
        server.listen()
        assert path.is_socket()
        with unix_address(path) as address:
            client.connect(address)


def test_a_folder_that_is_missing_is_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), unix_address(tmp_path / ("x" * 120) / "s"):
        pass
