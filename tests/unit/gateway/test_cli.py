"""The command line: what goes to stdout, what to stderr, and the exit codes; behind it stand plain functions."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import click
import httpx
import pytest
from click.testing import CliRunner

from gateway.__main__ import main
from gateway.cli import control, doors
from gateway.cli.control import ControlError, Reply, ask
from gateway.cli.doors import Checked, CommandError, Doors, Where
from gateway.cli.main import make_app, run
from gateway.cli.remote import Remote, Target
from gateway.settings import Settings, settings_about


class Calls:
    """Doors that note what came through and give what a test says."""

    def __init__(self, code: int = 0, reply: Reply | None = None, environ: Mapping[str, str] | None = None) -> None:
        self.settings: list[Settings] = []
        self.asked: list[tuple[Path, str]] = []
        self._code = code
        self._reply = reply or Reply(True, "done")
        self.doors = Doors(
            serve=self._serve,
            connect=self._connect,
            ask=self._ask,
            check=lambda folder, settings: Checked(1, 2, ("a.yml: identity: no effect",)),
            environ=environ or {},
        )

    def _serve(self, settings: Settings) -> int:
        self.settings.append(settings)
        return self._code

    def _connect(self, where: Where, environ: Mapping[str, str]) -> Remote:
        """A gateway that has keys for every endpoint, and tokens for none."""

        def handler(request: httpx.Request) -> httpx.Response:
            endpoint, action = request.url.path.split("/")[-2:]
            if action == "token":
                return httpx.Response(404, json={"error": {"message": f"there is no endpoint {endpoint}"}})
            return httpx.Response(200, json={"primaryKey": f"{where.state}/{endpoint}", "secondaryKey": "s"})

        return Remote(Target(url="https://gateway", token="t"), transport=httpx.MockTransport(handler))

    def _ask(self, state: Path, command: str, timeout_s: float) -> Reply:
        self.asked.append((state, command))
        return self._reply


def test_serve_takes_every_setting_as_a_flag() -> None:
    calls = Calls(environ={"GATEWAY_SCORERS": "2", "GATEWAY_DOMAIN": "example.org"})
    code = run(
        ["serve", "--apply", "models", "--scoring", "http://127.0.0.1:0", "--scorers", "1", "--gzip"], calls.doors
    )
    (settings,) = calls.settings
    assert code == 0
    assert (settings.apply, settings.scoring.url, settings.scorers) == (Path("models"), "http://127.0.0.1:0", 1)
    assert (settings.gzip, settings.domain) == (True, "example.org")
    shown = CliRunner().invoke(make_app(calls.doors), ["serve", "--help"], env={"COLUMNS": "200"}).stdout
    assert [name for name in settings_about() if f"--{name.replace('_', '-')} " not in shown] == []


def test_serve_leaves_with_the_supervisors_code() -> None:
    assert run(["serve"], Calls(code=1).doors) == 1
    assert run(["serve", "--no-gzip"], Calls(code=130).doors) == 130


def test_a_wrong_setting_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    calls = Calls(environ={"GATEWAY_SCORER": "2"})
    assert run(["serve", "--timeout-status", "500"], calls.doors) == 2
    out = capsys.readouterr()
    assert (out.out, calls.settings) == ("", [])
    assert out.err == (
        "error: environment GATEWAY_SCORER: there is no such setting; did you mean GATEWAY_SCORERS?\n"
        "error: argument --timeout-status: found '500'; accepted: one of 408, 504\n"
    )


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["serv"], "error: No such command 'serv'. Did you mean 'serve'?; see gateway --help\n"),
        (["keys"], "error: Missing argument 'ENDPOINT'; see gateway keys --help\n"),
    ],
)
def test_wrong_usage_is_one_line_and_code_2(args: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(args, Calls().doors) == 2
    assert capsys.readouterr() == ("", said)


def test_an_unknown_flag_names_its_neighbours(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["serve", "--scorerz", "1"], Calls().doors) == 2
    assert "--scorers" in capsys.readouterr().err


def test_help_has_examples_and_is_what_no_argument_gives(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([], Calls().doors) == 0
    assert "Example: gateway serve --apply examples/digits" in capsys.readouterr().out
    commands = ("serve", "settings", "reload", "status", "keys", "token", "logs", "check", "apply", "diff", "export")
    for command in (*commands, "tokens create", "rollout start", "rollout pause"):
        assert run([*command.split(), "-h"], Calls().doors) == 0
        assert "Example" in capsys.readouterr().out


def test_help_names_commands_in_order_with_arguments_and_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    def rows(*args: str) -> list[str]:
        assert run([*args, "--help"], Calls().doors) == 0
        return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]

    words = [row.partition(" ")[0] for row in rows()]
    assert words[words.index("Commands:") + 1 :][:5] == ["serve", "settings", "reload", "status", "keys"]
    assert [row.partition(" ")[0] for row in rows("tokens")][-3:] == ["list", "create", "delete"]
    shown = rows("logs")
    assert shown[shown.index("Arguments:") + 1] == "ENDPOINT Name of the endpoint. [required]"
    assert "--tail N Last lines. [default: 100; 0<=x<=10000]" in shown


def test_a_group_needs_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["tokens"], Calls().doors) == 2
    assert capsys.readouterr() == ("", "error: Missing command; see gateway tokens --help\n")
    assert run(["tokens", "xyz"], Calls().doors) == 2
    assert capsys.readouterr() == ("", "error: No such command 'xyz'; see gateway tokens --help\n")


def test_a_shell_completes_commands_and_flags(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def completed(instruction: str, words: str = "", at: int = 0) -> str:
        monkeypatch.setenv("_GATEWAY_COMPLETE", instruction)
        monkeypatch.setenv("COMP_WORDS", words)
        monkeypatch.setenv("COMP_CWORD", str(at))
        with pytest.raises(SystemExit) as caught:
            run([], Calls().doors)
        assert caught.value.code == 0
        return capsys.readouterr().out

    assert "_GATEWAY_COMPLETE=zsh_complete gateway" in completed("zsh_source")
    assert completed("bash_complete", "gateway re", 1) == "plain,reload\n"
    assert completed("bash_complete", "gateway tokens ", 2) == "plain,list\nplain,create\nplain,delete\n"
    assert completed("bash_complete", "gateway serve --scorer", 2) == "plain,--scorers\n"
    assert "plain,serve\n" in completed("bash_complete", "gateway nothing ", 2)


def test_keys_are_json_on_stdout_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["keys", "digits", "--state", "/s"], Calls().doors) == 0
    out = capsys.readouterr()
    assert json.loads(out.out) == {"primaryKey": "/s/digits", "secondaryKey": "s"}
    assert out.err == ""


def test_the_state_folder_may_come_from_the_environment() -> None:
    result = CliRunner().invoke(make_app(Calls(environ={"GATEWAY_STATE": "/e"}).doors), ["keys", "digits"])
    assert json.loads(result.stdout)["primaryKey"] == "/e/digits"


def test_where_a_gateway_is_are_no_settings() -> None:
    environ = {"GATEWAY_URL": "https://far", "GATEWAY_TOKEN": "t", "GATEWAY_CA": "ca.pem"}
    assert run(["settings"], Calls(environ=environ).doors) == 0


def test_what_is_not_found_is_code_3(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["token", "letters"], Calls().doors) == 3
    assert capsys.readouterr() == ("", "error: there is no endpoint letters\n")


def test_reload_says_what_happened_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    calls = Calls(reply=Reply(True, "serving 2 deployments"))
    assert run(["reload", "--state", "/s"], calls.doors) == 0
    assert capsys.readouterr() == ("", "serving 2 deployments\n")
    assert calls.asked == [(Path("/s"), "reload")]


def test_a_refused_reload_is_code_1_with_every_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["reload"], Calls(reply=Reply(False, "a.yml: x\nb.yml: y")).doors) == 1
    assert capsys.readouterr() == ("", "error: a.yml: x\nerror: b.yml: y\n")
    assert run(["reload"], Calls(reply=Reply(False, "")).doors) == 1
    assert capsys.readouterr() == ("", "error: reload failed\n")


def test_status_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["status"], Calls(reply=Reply(True, "", {"revision": 3})).doors) == 0
    assert capsys.readouterr() == ('{"revision": 3}\n', "")


def test_check_tells_notes_and_counts(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", "models"], Calls().doors) == 0
    out = capsys.readouterr()
    assert out.out == "models: endpoints 1, deployments 2, no problems\n"
    assert out.err == "note: a.yml: identity: no effect\n"


def test_settings_are_printed_with_their_sources(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["settings", "--scorers", "3"], Calls(environ={"GATEWAY_GZIP": "true"}).doors) == 0
    rows = {line.split()[0]: " ".join(line.split()[1:]) for line in capsys.readouterr().out.splitlines()}
    assert list(rows) == list(settings_about())
    assert rows["scorers"] == "3 argument --scorers"
    assert rows["gzip"] == "true environment GATEWAY_GZIP"
    assert rows["scoring"] == "https://127.0.0.1:8443 default"


def test_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["version"], Calls().doors) == 0
    assert capsys.readouterr().out[0].isdigit()


def test_an_interrupt_is_code_130() -> None:
    def interrupt(settings: Settings) -> int:
        raise KeyboardInterrupt

    def abort(settings: Settings) -> int:
        raise click.Abort

    assert run(["serve"], Doors(serve=interrupt, environ={})) == 130
    assert run(["serve"], Doors(serve=abort, environ={})) == 130


def test_the_installed_command_runs_argv(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["gateway", "version"])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 0
    assert capsys.readouterr().out


def test_help_loads_neither_engine_nor_server_nor_terminal_toolkit() -> None:
    # In a process of its own, for this one has loaded them already.
    heavy = (
        "numpy",
        "onnxruntime",
        "starlette",
        "uvicorn",
        "yaml",
        "msgspec",
        "cryptography",
        "rich",
        "httpx",
        "pydantic",
    )
    code = (
        "import sys\nfrom gateway.cli.main import run\n"
        f"assert run(['serve', '--help']) == 0\nprint([name for name in {heavy!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


# ---- the doors themselves ----------------------------------------------------------------------------------------


def test_the_door_of_check_reads_the_folder_as_serve_would(tmp_path: Path) -> None:
    (tmp_path / "e.yml").write_text("name: digits\n")
    assert doors.check(tmp_path, Settings()) == Checked(1, 0, ())
    (tmp_path / "e.yml").write_text("name: digits\nzzz: 1\nyyy: 1\n")
    with pytest.raises(CommandError) as caught:
        doors.check(tmp_path, Settings())
    assert (len(caught.value.lines), caught.value.code) == (2, 1)


def test_the_door_of_ask_says_that_nobody_is_there(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="no gateway runs on the state folder"):
        doors.ask(tmp_path, "reload", 1.0)


# ---- the control socket, over a connected pair -------------------------------------------------------------------


class FakeSocket:
    """A connection that gives these parts, or raises them."""

    def __init__(self, *parts: bytes | Exception, refusal: OSError | None = None) -> None:
        self._parts = list(parts)
        self._refusal = refusal
        self.sent = b""
        self.path = ""

    def __call__(self, *_: object) -> FakeSocket:
        return self

    def __enter__(self) -> FakeSocket:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def settimeout(self, seconds: float) -> None:
        assert seconds > 0

    def connect(self, path: str) -> None:
        self.path = path
        if self._refusal is not None:
            raise self._refusal

    def sendall(self, data: bytes) -> None:
        self.sent += data

    def recv(self, size: int) -> bytes:
        part = self._parts.pop(0) if self._parts else b""
        if isinstance(part, Exception):
            raise part
        return part


def asked(monkeypatch: pytest.MonkeyPatch, fake: FakeSocket) -> Reply:
    monkeypatch.setattr(socket, "socket", fake)
    return ask(Path("/state"), "reload", 5.0)


def test_one_line_goes_out_and_one_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeSocket(b'{"ok": true, "mes', b'sage": "m", "data": [1]}\n')
    assert asked(monkeypatch, fake) == Reply(True, "m", [1])
    assert (fake.sent, fake.path) == (b'{"command": "reload"}\n', "/state/control.sock")
    assert asked(monkeypatch, FakeSocket(b'{"ok": false}')) == Reply(False, "", None)


@pytest.mark.parametrize(
    ("fake", "said"),
    [
        (FakeSocket(refusal=FileNotFoundError()), "no gateway runs on the state folder /state; start one with"),
        (FakeSocket(refusal=ConnectionRefusedError()), "no gateway runs on the state folder /state; start one with"),
        (FakeSocket(refusal=PermissionError(13, "Permission denied")), "/state/control.sock: Permission denied"),
        (FakeSocket(refusal=OSError("AF_UNIX path too long")), "/state/control.sock: AF_UNIX path too long"),
        (FakeSocket(TimeoutError()), "the gateway gave no answer to 'reload' in 5 s; see its log"),
        (FakeSocket(ConnectionResetError(104, "Connection reset by peer")), "hung up on 'reload': Connection reset"),
        (FakeSocket(), "the gateway answered nothing to 'reload'"),
        (FakeSocket(b"not json\n"), "the gateway answered 9 bytes that are no answer to 'reload'"),
        (FakeSocket(b"[]\n"), "3 bytes that are no answer"),
        (FakeSocket(b"{}\n"), "3 bytes that are no answer"),
    ],
)
def test_what_goes_wrong_is_one_sentence(fake: FakeSocket, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ControlError) as caught:
        asked(monkeypatch, fake)
    assert said in str(caught.value)


def test_an_endless_answer_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "ANSWER_BYTES_MAX", 10)
    with pytest.raises(ControlError, match="12 bytes that are no answer"):
        asked(monkeypatch, FakeSocket(b"xxxxxx", b"xxxxxx", b"xxxxxx"))
