"""The commands that work with a running gateway, against one that stands in this process."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from gateway.cli.doors import Doors, Where
from gateway.cli.main import run
from gateway.cli.remote import Remote, Target
from gateway.controlplane.apply_bundle import apply_bundle
from gateway.controlplane.export import Exported
from gateway.controlplane.store.records import Kind
from gateway.errors import Problem
from tests.support.applied import ACTOR, DEPLOYMENT, ENDPOINT, Stored, write

Answer = Callable[[Any], httpx.Response]


class Gateway:
    """A management listener without a socket. `operations` are the states that an operation has, one a question."""

    def __init__(self) -> None:
        self.stored = Stored()
        self.content: dict[str, bytes] = {}
        self.uploads: list[str] = []
        self.asked: list[tuple[str, str]] = []
        self.bodies: list[Any] = []
        self.waited_s = 0.0
        self.answers: dict[str, Any] = {}
        self.forgets = False
        self.doors = Doors(connect=self._connect, environ={})

    def run(self, *args: str) -> int:
        return run(args, self.doors)

    def _connect(self, where: Where, environ: Mapping[str, str]) -> Remote:
        target = Target(url="https://gateway", token="t")
        return Remote(target, timeout_s=2, transport=httpx.MockTransport(self._handle), sleep=self._sleep)

    def _sleep(self, seconds: float) -> None:
        self.waited_s += seconds

    def _handle(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        self.asked.append((request.method, path.rpartition("/onlineEndpoints/")[2] or path))
        body = request.read()
        if path.startswith("/blob/azureml/"):
            return self._upload(path, body)
        if path.startswith("/blob/sha256/"):
            return httpx.Response(200, content=self.content[path.rpartition("/")[2]])
        self.bodies.append(json.loads(body) if body else None)
        for part, answer in self.answers.items():
            if path.endswith(part):
                found = answer.pop(0) if isinstance(answer, list) else answer
                return found if isinstance(found, httpx.Response) else httpx.Response(200, json=found)
        if path == "/apply":
            return self._apply(self.bodies[-1])
        assert path == "/export"
        return httpx.Response(200, content=msgspec.json.encode(Exported(documents=self.stored.export())))

    def _upload(self, path: str, body: bytes) -> httpx.Response:
        sha256 = hashlib.sha256(body).hexdigest()
        self.content[sha256] = body
        self.uploads.append(path.rpartition("/")[2])
        if not self.forgets:
            self.stored.present.add(sha256)
        return httpx.Response(201)

    def _apply(self, body: Any) -> httpx.Response:
        try:
            return httpx.Response(
                200, content=msgspec.json.encode(asyncio.run(apply_bundle(self.stored, body, ACTOR)))
            )
        except Problem as problem:
            details = [{"message": one} for one in problem.details]
            return httpx.Response(400, json={"error": {"message": problem.message, "details": details}})


@pytest.fixture
def gateway() -> Gateway:
    return Gateway()


Capture = pytest.CaptureFixture[str]


# ---- apply and diff ---------------------------------------------------------------------------------------------


def test_apply_sends_documents_and_what_content_is_missing(tmp_path: Path, gateway: Gateway, capsys: Capture) -> None:
    folder = str(write(tmp_path, a=ENDPOINT, b=DEPLOYMENT))
    assert gateway.run("apply", "-f", folder) == 0
    out = capsys.readouterr()
    assert [line.split(" ")[:2] for line in out.out.splitlines()] == [
        ["+", "model"],
        ["+", "endpoint"],
        ["+", "deployment"],
    ]
    assert out.err == "uploading m.onnx (7 bytes)\n3 created, 0 changed, 0 deleted, 0 unchanged\n"
    assert gateway.run("apply", "-f", folder) == 0
    assert capsys.readouterr() == ("", "0 created, 0 changed, 0 deleted, 3 unchanged\n")
    assert gateway.uploads == ["m.onnx"]


def test_diff_says_by_its_exit_status_whether_something_differs(
    tmp_path: Path, gateway: Gateway, capsys: Capture
) -> None:
    folder = str(write(tmp_path, a="name: digits\n"))
    assert gateway.run("diff", "-f", folder) == 1
    assert capsys.readouterr() == ("+ endpoint digits\n", "1 to create, 0 to change, 0 to delete, 0 unchanged\n")
    assert gateway.stored.resources == []
    assert gateway.run("apply", "-f", folder, "--dry-run") == 0
    assert gateway.stored.resources == []
    assert gateway.run("apply", "-f", folder) == 0
    assert gateway.run("diff", "-f", folder) == 0
    gateway.stored.put(Kind.ONLINE_ENDPOINT, {"name": "letters"})
    assert gateway.run("diff", "-f", folder) == 0
    assert gateway.run("diff", "-f", folder, "--prune") == 1
    capsys.readouterr()
    assert gateway.run("diff", "-f", str(tmp_path / "none")) == 2
    assert "is not there; accepted: a folder" in capsys.readouterr().err


def test_every_mistake_of_a_folder_is_a_line_and_nothing_is_sent(
    tmp_path: Path, gateway: Gateway, capsys: Capture
) -> None:
    folder = write(tmp_path, a="name: digits\nzzz: 1\n", b=DEPLOYMENT.replace("m.onnx", "../x.onnx"))
    assert gateway.run("apply", "-f", str(folder)) == 1
    assert [line.split(": ")[1] for line in capsys.readouterr().err.splitlines()] == ["a.yml:2", "b.yml:3"]
    for name in ("a.yml", "b.yml"):
        (folder / name).write_text("channels: [a]\n")
    assert gateway.run("apply", "-f", str(folder)) == 1
    assert "holds no document of a gateway; accepted" in capsys.readouterr().err
    assert gateway.asked == []


def test_what_the_gateway_refuses_is_told_line_by_line(tmp_path: Path, gateway: Gateway, capsys: Capture) -> None:
    folder = str(write(tmp_path, a="name: digits\n", b="name: DIGITS\n", c="name: Digits\n"))
    assert gateway.run("apply", "-f", folder) == 1
    assert len(capsys.readouterr().err.splitlines()) == 2
    assert gateway.run("diff", "-f", folder) == 2


def test_notes_and_waits_are_words_on_stderr(tmp_path: Path, gateway: Gateway, capsys: Capture) -> None:
    folder = str(write(tmp_path, a="name: digits\nidentity: {type: none}\n", conda="channels: [a]\n"))
    busy = httpx.Response(409, json={"error": {"message": "an update of digits is under way"}})
    done = {"applied": True, "changes": ["+ x"], "summary": "s", "notes": ["n"]}
    gateway.answers["/apply"] = [busy, done]
    assert gateway.run("apply", "-f", folder) == 0
    out = capsys.readouterr()
    assert out.out == "+ x\n"
    assert out.err.splitlines()[1:] == ["waiting: an update of digits is under way", "note: n", "s"]
    assert out.err.startswith("note: conda.yml: channels")


def test_a_change_that_takes_its_time_is_waited_for(tmp_path: Path, gateway: Gateway, capsys: Capture) -> None:
    folder = str(write(tmp_path, a="name: digits\n"))
    gateway.answers["/apply"] = {"applied": True, "operation": "o1"}
    running = {"status": "InProgress"}
    gateway.answers["/mfeOperationsStatus/o1"] = [running, running, {"status": "Succeeded"}]
    assert gateway.run("apply", "-f", folder) == 0
    assert gateway.waited_s == 2
    failed = {"status": "Failed", "error": {"message": "a.yml: no\nb.yml: neither"}}
    gateway.answers["/mfeOperationsStatus/o1"] = [failed]
    capsys.readouterr()
    assert gateway.run("apply", "-f", folder) == 1
    assert capsys.readouterr().err == "error: a.yml: no\nerror: b.yml: neither\n"
    gateway.answers["/mfeOperationsStatus/o1"] = {"status": "Canceled", "error": None}
    assert gateway.run("apply", "-f", folder) == 1
    assert "the change ended Canceled" in capsys.readouterr().err
    gateway.answers["/mfeOperationsStatus/o1"] = running
    assert gateway.run("apply", "-f", folder) == 1
    assert "is not carried out after 2 s and goes on" in capsys.readouterr().err


def test_answers_that_make_no_sense_are_told(tmp_path: Path, gateway: Gateway, capsys: Capture) -> None:
    folder = str(write(tmp_path, a=ENDPOINT, b=DEPLOYMENT))
    gateway.forgets = True
    assert gateway.run("apply", "-f", folder) == 1
    assert "the gateway misses content that it was sent" in capsys.readouterr().err
    for answer, said in (
        ({"applied": False, "missing": ["f" * 64]}, "asks for content that the folder does not have"),
        ({"done": 1}, "the gateway's answer cannot be read"),
    ):
        gateway.answers["/apply"] = answer
        assert gateway.run("apply", "-f", folder) == 1
        assert said in capsys.readouterr().err


# ---- export -----------------------------------------------------------------------------------------------------


def test_what_is_exported_with_its_content_is_applied_without_a_change(
    tmp_path: Path, gateway: Gateway, capsys: Capture
) -> None:
    gateway.run("apply", "-f", str(write(tmp_path / "a", a=ENDPOINT, b=DEPLOYMENT)))
    target = str(tmp_path / "out")
    capsys.readouterr()
    assert gateway.run("export", "-o", target, "--content") == 0
    assert capsys.readouterr().out == f"{target}: documents 3, files of content 1\n"
    assert gateway.run("diff", "-f", target, "--prune") == 0


def test_without_content_one_text_says_the_rest(tmp_path: Path, gateway: Gateway, capsys: Capture) -> None:
    gateway.run("apply", "-f", str(write(tmp_path / "a", a=ENDPOINT, b=DEPLOYMENT)))
    capsys.readouterr()
    assert gateway.run("export") == 0
    out = capsys.readouterr()
    assert out.out.startswith("---\n# endpoint-digits/deployment-blue.yml\n$schema: ")
    assert out.out.count("---\n") == 2
    assert "is left out, for it has content (--content); it stays registered" in out.err
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "all.yml").write_text(out.out)
    assert gateway.run("diff", "-f", str(tmp_path / "b")) == 0


def test_an_export_overwrites_nothing_and_stays_in_its_folder(
    tmp_path: Path, gateway: Gateway, capsys: Capture
) -> None:
    assert gateway.run("export", "--content") == 2
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    assert gateway.run("export", "-o", str(tmp_path / "full")) == 1
    assert "is not empty; accepted: a new or empty folder" in capsys.readouterr().err
    assert gateway.run("export", "-o", str(tmp_path / "full" / "x")) == 1
    assert "cannot use" in capsys.readouterr().err
    gateway.answers["/export"] = {"documents": [{"file": "../x.yml", "text": ""}]}
    assert gateway.run("export", "-o", str(tmp_path / "out")) == 1
    assert "leads out of the folder" in capsys.readouterr().err
    gateway.answers["/export"] = {"documents": [{"file": "a", "text": ""}, {"file": "a/b", "text": ""}]}
    assert gateway.run("export", "-o", str(tmp_path / "clash")) == 1
    assert "cannot write" in capsys.readouterr().err
    gateway.answers["/export"] = [[]]
    assert gateway.run("export") == 1
    assert "cannot be read" in capsys.readouterr().err


# ---- credentials, tokens, rollouts ------------------------------------------------------------------------------


def test_keys_and_tokens_of_endpoints_are_asked_for(gateway: Gateway, capsys: Capture) -> None:
    gateway.answers = {"digits/listKeys": {"primaryKey": "a"}, "digits/token": {"accessToken": "b"}}
    assert gateway.run("keys", "digits") == 0
    assert gateway.run("token", "digits") == 0
    assert capsys.readouterr().out.splitlines() == ['{"primaryKey": "a"}', '{"accessToken": "b"}']
    assert gateway.asked == [("POST", "digits/listKeys"), ("POST", "digits/token")]


def test_management_tokens_are_listed_made_and_ended(gateway: Gateway, capsys: Capture) -> None:
    gateway.answers = {"/tokens/ci": httpx.Response(200), "/tokens": {"value": [{"name": "ci"}]}}
    assert gateway.run("tokens", "list") == 0
    assert json.loads(capsys.readouterr().out) == [{"name": "ci"}]
    assert gateway.run("tokens", "delete", "ci") == 0
    assert gateway.run("tokens", "delete", "other") == 3
    assert "there is no management token 'other'; there are: ci" in capsys.readouterr().err
    gateway.answers = {"/tokens": {"name": "ci", "token": "igm_x"}}
    assert gateway.run("tokens", "create", "ci", "--role", "operator", "--lifetime", "60") == 0
    assert gateway.bodies[-1] == {"name": "ci", "role": "operator", "lifetimeSeconds": 60}
    assert gateway.run("tokens", "create", "ci") == 0
    assert gateway.bodies[-1] == {"name": "ci", "role": "reader"}
    assert json.loads(capsys.readouterr().out.splitlines()[0])["token"] == "igm_x"


def test_a_rollout_is_begun_watched_and_told(gateway: Gateway, capsys: Capture) -> None:
    shown = {"name": "green", "properties": {"status": "Running", "ended_at": None}}
    old = {"name": "old", "properties": {"status": "Succeeded", "ended_at": 1_800_000_000.0}}
    gateway.answers = {"/rollouts": {"value": [old, shown]}, "/rollouts/green": shown}
    gateway.answers |= {f"/rollouts/green/{one}": shown for one in ("pause", "resume", "promote", "cancel")}
    started = ("rollout", "start", "digits", "--from", "blue", "--to", "green")
    assert gateway.run(*started, "--steps", "5,100", "--hold", "9") == 0
    assert gateway.bodies[-1] == {"from": "blue", "to": "green", "steps": [5, 100], "hold_s": 9}
    assert gateway.run(*started) == 0
    assert gateway.bodies[-1] == {"from": "blue", "to": "green"}
    assert gateway.run(*started, "--steps", "5;100") == 2
    assert gateway.run("rollout", "status", "digits") == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])[1] == {"name": "green"} | shown["properties"]  # type: ignore[operator]
    for command in ("pause", "resume", "promote", "cancel"):
        assert gateway.run("rollout", command, "digits") == 0
        assert gateway.asked[-1] == ("POST", f"digits/rollouts/green/{command}")
    gateway.answers["/rollouts"] = {"value": [old]}
    assert gateway.run("rollout", "pause", "digits") == 3
    assert "has 0 rollouts under way; name one with --name" in capsys.readouterr().err
    assert gateway.run("rollout", "cancel", "digits", "--name", "green") == 0


def test_a_gateway_that_is_not_there_is_told(tmp_path: Path, capsys: Capture) -> None:
    assert run(["keys", "digits", "--state", str(tmp_path)], Doors(environ={})) == 1
    assert "no gateway runs on the state folder" in capsys.readouterr().err
