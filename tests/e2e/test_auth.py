"""Who may score: keys, the gateway's own tokens, and tokens of a real OIDC issuer; and what strangers are told."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.support.issuer import Issuer
from tests.support.models import double
from tests.support.process import GatewayProcess, deployment_yaml, endpoint_yaml, replace_file, write_folder
from tests.support.tokens import AUDIENCE
from tests.support.waiting import eventually

BODY = {"input_data": [[1, 2, 3, 4]]}
ROLE = "scorer"
FILE_KEY, ENV_KEY = "from-a-file-0123456789abcdef", "from-the-environment-0123456789"
ENDPOINTS = ("alpha", "beta", "brought", "tokens", "tickets", "directory")


@pytest.fixture(scope="module")
def issuer() -> Iterator[Issuer]:
    with Issuer("first") as started:
        yield started


@pytest.fixture(scope="module")
def guarded(issuer: Issuer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """One endpoint for each way in, on one scorer, so that fetches of keys can be counted."""
    place = tmp_path_factory.mktemp("auth")
    brought = {"keys": {"primary": {"file": "brought.key"}, "secondary": {"env": "BROUGHT_KEY"}}}
    oidc = {"oidc": {"issuer": issuer.url, "audience": AUDIENCE, "required_roles": [ROLE]}}
    files: dict[str, str | bytes] = {
        "double.onnx": double(),
        "brought.key": f"{FILE_KEY}\n",
        "alpha.yml": endpoint_yaml("alpha", traffic={"only": 100}),
        "beta.yml": endpoint_yaml("beta", traffic={"only": 100}),
        "brought.yml": endpoint_yaml("brought", traffic={"only": 100}, gateway=brought),
        "tokens.yml": endpoint_yaml("tokens", auth_mode="aml_token", traffic={"only": 100}),
        "tickets.yml": endpoint_yaml("tickets", auth_mode="aml_token", traffic={"only": 100}),
        "directory.yml": endpoint_yaml("directory", auth_mode="aad_token", traffic={"only": 100}, gateway=oidc),
    }
    files |= {f"of-{name}.yml": deployment_yaml("only", "double.onnx", name) for name in ENDPOINTS}
    folder = write_folder(place / "models", files)
    environment = {"BROUGHT_KEY": ENV_KEY}
    with GatewayProcess(folder, place / "state", scorers=1, environment=environment) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def client(guarded: GatewayProcess) -> Iterator[httpx.Client]:
    with guarded.client() as found:
        yield found


def _score(client: httpx.Client, endpoint: str, credential: str | None, scheme: str = "Bearer") -> int:
    headers = {} if credential is None else {b"authorization": f"{scheme} {credential}".encode()}
    reply = client.post(f"/endpoints/{endpoint}/score", json=BODY, headers=headers)
    if reply.status_code == 200:
        assert reply.json() == [[2, 4, 6, 8]]
    if reply.status_code == 401:
        assert reply.headers["www-authenticate"].startswith("Bearer")
        assert "no valid credential" in reply.json()["error"]["message"]
    return reply.status_code


def _token(gateway: GatewayProcess, endpoint: str) -> str:
    done = gateway.run("token", endpoint)
    assert done.returncode == 0, done.stderr
    token: str = json.loads(done.stdout)["accessToken"]
    return token


# Keys.


def test_both_keys_open_their_endpoint_and_no_other_one(guarded: GatewayProcess, client: httpx.Client) -> None:
    keys = {name: guarded.keys(name) for name in ("alpha", "beta")}
    for name, other in (("alpha", "beta"), ("beta", "alpha")):
        assert set(keys[name]) == {"primaryKey", "secondaryKey"}
        for key in keys[name].values():
            assert _score(client, name, key) == 200
            assert _score(client, other, key) == 401
    assert len({key for found in keys.values() for key in found.values()}) == 4


def test_the_scheme_is_bearer_in_any_case(guarded: GatewayProcess, client: httpx.Client) -> None:
    key = guarded.keys("alpha")["primaryKey"]
    assert [_score(client, "alpha", key, scheme) for scheme in ("Bearer", "bearer", "BEARER")] == [200] * 3
    assert [_score(client, "alpha", key, scheme) for scheme in ("Basic", "Token", "Key", "Bearer:")] == [401] * 4


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_strangers_get_one_and_the_same_answer(client: httpx.Client, endpoint: str) -> None:
    garbage = [None, "x", "null", "a.b.c", "k" * 9000, "Bearer", "\N{KEY}"]
    assert [_score(client, endpoint, credential) for credential in garbage] == [401] * len(garbage)


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize(
    "route",
    [
        "/endpoints/{}/swagger.json",
        "/endpoints/{}/",
        "/v2/models/{}",
        "/v2/models/{}/config",
        "/v2/models/{}/ready",
        "/v2/models/{}/stats",
        "/v2/models/{}/versions/only",
    ],
)
def test_documents_ask_for_the_same_credentials(client: httpx.Client, endpoint: str, route: str) -> None:
    assert client.get(route.format(endpoint)).status_code == 401


def test_lists_show_what_the_callers_key_opens_and_nothing_else(
    guarded: GatewayProcess, client: httpx.Client
) -> None:
    headers = {"authorization": f"Bearer {guarded.keys('alpha')['primaryKey']}"}
    index = client.post("/v2/repository/index", headers=headers)
    assert [entry["name"] for entry in index.json()] == ["alpha"]
    statistics = client.get("/v2/models/stats", headers=headers)
    assert [model["name"] for model in statistics.json()["model_stats"]] == ["alpha"]
    assert client.post("/v2/repository/index").status_code == 401
    assert client.get("/v2/models/stats").status_code == 401


def test_a_stranger_is_refused_before_the_body_is_sent(guarded: GatewayProcess) -> None:
    address = urlsplit(guarded.urls["scoring"])
    head = (
        f"POST /endpoints/alpha/score HTTP/1.1\r\nHost: {address.netloc}\r\n"
        "Authorization: Bearer nobody\r\nContent-Length: 1000\r\n\r\n"
    )
    plain = socket.create_connection((str(address.hostname), int(address.port or 0)), 20)
    with guarded.trust().wrap_socket(plain, server_hostname=address.hostname) as connection:
        connection.sendall(head.encode())
        # An answer that waited for the body would not come.
        assert connection.recv(1000).startswith(b"HTTP/1.1 401 ")


def test_keys_come_from_a_file_and_from_the_environment(guarded: GatewayProcess, client: httpx.Client) -> None:
    assert guarded.keys("brought") == {"primaryKey": FILE_KEY, "secondaryKey": ENV_KEY}
    assert _score(client, "brought", FILE_KEY) == 200
    assert _score(client, "brought", ENV_KEY) == 200
    assert _score(client, "alpha", FILE_KEY) == 401


def test_a_new_key_in_the_file_counts_after_a_reload(guarded: GatewayProcess, client: httpx.Client) -> None:
    assert guarded.folder is not None
    renewed = "renewed-0123456789abcdef"
    try:
        replace_file(guarded.folder / "brought.key", renewed.encode())
        guarded.reload()
        assert [_score(client, "brought", key) for key in (renewed, FILE_KEY, ENV_KEY)] == [200, 401, 200]
    finally:
        replace_file(guarded.folder / "brought.key", FILE_KEY.encode())
        guarded.reload()
    assert _score(client, "brought", FILE_KEY) == 200


def test_a_key_file_that_is_gone_refuses_the_change(guarded: GatewayProcess, client: httpx.Client) -> None:
    assert guarded.folder is not None
    path = guarded.folder / "brought.key"
    path.unlink()
    try:
        refused = guarded.manage("POST", "/reload")
        assert refused.status_code == 409
        assert "brought.key" in refused.json()["message"]
        assert _score(client, "brought", FILE_KEY) == 200
    finally:
        replace_file(path, FILE_KEY.encode())
        guarded.reload()


# The gateway's own tokens.


def test_a_token_opens_the_endpoint_it_was_made_for(guarded: GatewayProcess, client: httpx.Client) -> None:
    token = _token(guarded, "tokens")
    assert _score(client, "tokens", token) == 200
    # Genuine, but for another endpoint.
    assert _score(client, "tickets", token) == 403
    assert _score(client, "alpha", token) == 401
    assert _score(client, "tokens", token[:-2]) == 401
    assert _score(client, "tokens", guarded.keys("alpha")["primaryKey"]) == 401


def test_tokens_and_keys_are_only_given_out_for_their_kind_of_endpoint(guarded: GatewayProcess) -> None:
    for command, endpoint in (("token", "alpha"), ("keys", "tokens"), ("keys", "directory"), ("token", "directory")):
        done = guarded.run(command, endpoint)
        assert (done.returncode, done.stdout) == (1, "")
        assert "auth_mode" in done.stderr


# Tokens of an issuer.


def test_a_token_of_the_issuer_with_the_role_opens_the_endpoint(issuer: Issuer, client: httpx.Client) -> None:
    assert _score(client, "directory", issuer.token(roles=[ROLE])) == 200
    assert _score(client, "directory", issuer.token(scp=f"read {ROLE}")) == 200


def test_a_genuine_token_without_the_role_is_403(issuer: Issuer, client: httpx.Client) -> None:
    reply = client.post(
        "/endpoints/directory/score", json=BODY, headers={"authorization": f"Bearer {issuer.token(roles=['reader'])}"}
    )
    assert reply.status_code == 403
    assert reply.json()["error"]["code"] == "forbidden"
    assert _score(client, "directory", issuer.token()) == 403


def test_tokens_that_prove_nothing_are_401_and_cause_no_fetch(issuer: Issuer, client: httpx.Client) -> None:
    assert _score(client, "directory", issuer.token(roles=[ROLE])) == 200
    fetched = len(issuer.fetched)
    now_s = int(time.time())
    for wrong in (
        {"exp": now_s - 60},
        {"exp": None},
        {"nbf": now_s + 600},
        {"aud": "elsewhere"},
        {"iss": "https://login.example"},
        {"sub": None},
    ):
        assert _score(client, "directory", issuer.token(roles=[ROLE], **wrong)) == 401, wrong
    assert len(issuer.fetched) == fetched


def test_a_rotated_key_is_fetched_and_the_old_one_no_longer_opens(issuer: Issuer, client: httpx.Client) -> None:
    old = issuer.token(roles=[ROLE])
    assert _score(client, "directory", old) == 200
    issuer.rotate("second")
    new = issuer.token(roles=[ROLE])
    # Keys are fetched once in ten seconds at most; until then a new key is unknown.
    eventually(lambda: _score(client, "directory", new) == 200, "the new key is fetched", 20)
    assert _score(client, "directory", old) == 401
    assert len(issuer.fetched) <= 6


# Secrets stay secret.


def test_no_secret_shows_in_the_log_the_metrics_or_the_status(guarded: GatewayProcess) -> None:
    secrets = [FILE_KEY, ENV_KEY, *guarded.keys("alpha").values(), *guarded.keys("beta").values()]
    secrets.append((guarded.state / "management.token").read_text().strip())
    told = guarded.log() + guarded.metrics().page + json.dumps(guarded.status())
    assert [secret for secret in secrets if secret in told] == []


def test_secret_files_are_for_their_owner_only(guarded: GatewayProcess) -> None:
    kept = [path for path in guarded.state.rglob("*") if path.is_file() and path.suffix != ".pem"]
    assert {oct(path.stat().st_mode & 0o077) for path in kept if _is_secret(path)} == {"0o0"}


def _is_secret(path: Path) -> bool:
    return path.suffix in (".key", ".token", ".json")
