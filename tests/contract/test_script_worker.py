"""A scoring script in a worker process of its own: real processes, real sockets, the contract's section 6."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from runtimes.script.worker_lib.igw_worker import wire
from runtimes.script.worker_lib.igw_worker.main import UNREADABLE
from tests.support.script_worker import Worker, headers_of, value_of, write_script
from tests.support.waiting import PATIENCE_S

ECHO = """
    import json

    calls = 0

    def run(raw):
        global calls
        calls += 1
        return {"type": type(raw).__name__, "raw": raw, "calls": calls}
"""


def test_a_plain_script_is_asked_and_answers(tmp_path: Path) -> None:
    write_script(tmp_path, ECHO)
    with Worker(tmp_path) as worker:
        event = worker.event()
        assert event["event"] == "ready"
        assert event["pid"] == worker.process.pid
        assert json.loads(event["swagger"]["2"])["swagger"] == "2.0"
        frame = worker.call("größer".encode(), target="/score?x=1", request_id=77)
        assert frame.request_id == 77
        assert frame.head["status"] == 200
        assert frame.head["failed"] is False
        assert frame.head["ms"] >= 0
        assert value_of(frame) == {"type": "str", "raw": "größer", "calls": 1}
        headers = headers_of(frame)
        assert headers["content-type"] == "application/json"
        assert headers["x-ms-run-function-failed"] == "False"
        assert headers["x-ms-server-version"] == "test/1"
        assert value_of(worker.call(b"two"))["calls"] == 2
        log = worker.wait_for_log("POST /score 200")
        assert f"[{worker.process.pid}] azmlinfsrv - POST /score?x=1 200 " in log
        assert worker.stop() == 0


def test_large_bodies_travel_both_ways(tmp_path: Path) -> None:
    write_script(tmp_path, ECHO)
    with Worker(tmp_path) as worker:
        worker.ready()
        body = b"a" * 3_000_000
        frame = worker.call(body)
        assert value_of(frame)["raw"] == body.decode()
        assert worker.call(b"\xff").head["status"] == 400
        assert worker.call(b"\xff" * 100_000).head["status"] == 400


def test_two_workers_share_one_queue_and_the_free_one_takes_the_next(tmp_path: Path) -> None:
    script = """
        import os, time
        def run(raw):
            if raw == "slow":
                while not os.path.exists("go"):
                    time.sleep(0.005)
            return os.getpid()
    """
    write_script(tmp_path, script)
    with Worker(tmp_path) as first, Worker(tmp_path, number=1, pool=first) as second:
        first.ready()
        second.ready()
        first.ask(b"slow", request_id=1)
        slow = first.next()
        assert slow.kind == wire.TAKEN
        for request_id in range(2, 6):
            first.ask(b"fast", request_id=request_id)
            assert first.next().worker != slow.worker
            assert first.next().request_id == request_id
        (tmp_path / "go").touch()
        assert first.next().worker == slow.worker


def test_a_request_past_its_deadline_is_not_run(tmp_path: Path) -> None:
    write_script(tmp_path, ECHO)
    with Worker(tmp_path) as worker:
        worker.ready()
        worker.ask(b"late", request_id=9, deadline_ns=time.monotonic_ns() - 1)
        frame = worker.next()
        assert (frame.kind, frame.request_id) == (wire.EXPIRED, 9)
        assert value_of(worker.call(b"x"))["calls"] == 1


@pytest.mark.parametrize(
    ("script", "code", "says"),
    [
        ("def run(raw:\n  pass", "UserScriptImportError", "SyntaxError"),
        ("import nosuchmodule\ndef run(raw): pass", "UserScriptImportError", "No module named 'nosuchmodule'"),
        ("raise SystemExit(7)", "UserScriptImportError", "SystemExit: 7"),
        ("run = 5", "UserScriptFunctionNotFound", "no function run()"),
        ("def init(): raise ValueError('no\\nmodel')\ndef run(raw): pass", "UserScriptInitFailed", "no model"),
        ("def run(*args): pass", "BadArgument", "positional-only"),
        ("def run(request_headers): pass", "BadArgument", 'other than "request_headers"'),
        ("def run(): pass", "BadArgument", "argument for input data"),
    ],
)
def test_a_script_that_cannot_serve_says_why(tmp_path: Path, script: str, code: str, says: str) -> None:
    write_script(tmp_path, script)
    with Worker(tmp_path) as worker:
        event = worker.event()
        assert (event["event"], event["code"]) == ("failed", code)
        assert says in event["message"]
        assert "\n" not in event["message"]
        assert worker.process.wait(PATIENCE_S) == 3
        assert event["message"] in worker.logged()
        assert event["traceback"] in worker.logged()
        assert "igw_worker" not in event["traceback"]


def test_an_init_that_fails_shows_the_line_and_the_models_folder(tmp_path: Path) -> None:
    write_script(tmp_path, "def init():\n    open('nosuchfile')\ndef run(raw): pass")
    models = tmp_path / "models"
    (models / "mine").mkdir(parents=True)
    (models / "mine" / "weights.bin").touch()
    with Worker(tmp_path, environment={"AZUREML_MODEL_DIR": str(models)}) as worker:
        assert "open('nosuchfile')" in worker.event()["traceback"]
        worker.process.wait(PATIENCE_S)
        assert "weights.bin" in worker.logged()


def test_a_missing_script_and_a_wrong_setting_are_bad_arguments(tmp_path: Path) -> None:
    write_script(tmp_path, ECHO)
    with Worker(tmp_path, script="other.py") as worker:
        event = worker.event()
        assert event["code"] == "BadArgument"
        assert "'other.py' is not in the code folder, which has: score.py" in event["message"]
    with Worker(tmp_path, environment={"SCORING_TIMEOUT_MS": "soon"}) as worker:
        event = worker.event()
        assert event["code"] == "BadArgument"
        assert "SCORING_TIMEOUT_MS" in event["message"]
    (tmp_path / "logging.json").write_text("{}")
    with Worker(tmp_path) as worker:
        event = worker.event()
        assert event["code"] == "BadArgument"
        assert "logging.json" in event["message"]


def test_failures_of_run_are_answers_and_the_worker_goes_on(tmp_path: Path) -> None:
    script = """
        def run(raw):
            if raw == "raise":
                raise ValueError("secret detail")
            if raw == "object":
                return object()
            if raw == "big":
                return "x" * 2000
            if raw == "headers":
                from azureml_inference_server_http.api.aml_response import AMLResponse
                return AMLResponse("", 200, {"x-long": "v" * 70_000})
            if raw == "bad":
                class Bad(BaseException):
                    pass
                raise Bad
            return None
    """
    write_script(tmp_path, script)
    with Worker(tmp_path, max_result_bytes=1000) as worker:
        worker.ready()
        for body in (b"raise", b"bad"):
            frame = worker.call(body)
            assert (frame.head["status"], frame.head["failed"]) == (500, True)
            says = "An unexpected error occurred in scoring script. Check the logs for more info."
            assert value_of(frame) == {"message": says}
        assert worker.call(b"object").head["status"] == 500
        big = worker.call(b"big")
        assert big.head["status"] == 500
        assert "at most 1000" in value_of(big)["message"]
        headers = worker.call(b"headers")
        assert headers.head["status"] == 500
        assert value_of(worker.call(b"fine")) == {}
        assert "ValueError: secret detail" in worker.logged()
        assert "Object of type object is not JSON serializable" in worker.logged()


def test_sys_exit_in_run_is_answered_and_ends_the_worker(tmp_path: Path) -> None:
    write_script(tmp_path, "import sys\ndef run(raw):\n    sys.exit(int(raw))")
    with Worker(tmp_path) as worker:
        worker.ready()
        frame = worker.call(b"5")
        assert (frame.head["status"], frame.head["failed"]) == (500, True)
        assert worker.process.wait(PATIENCE_S) == 5


def test_a_scoring_timeout_interrupts_run(tmp_path: Path) -> None:
    write_script(tmp_path, "import time\ndef run(raw):\n    time.sleep(float(raw))\n    return raw")
    with Worker(tmp_path, environment={"SCORING_TIMEOUT_MS": "50"}) as worker:
        worker.ready()
        frame = worker.call(b"30")
        assert frame.head["status"] == 500
        assert value_of(frame) == {"message": "Scoring timeout after 50 ms"}
        assert worker.call(b"0").head["status"] == 200


@pytest.mark.parametrize("how", ["stop", "SIGTERM", "supervisor gone"])
def test_an_end_waits_for_the_request_that_runs(tmp_path: Path, how: str) -> None:
    script = """
        import os, time
        def run(raw):
            open("running", "w").close()
            while not os.path.exists("go"):
                time.sleep(0.005)
            return "done"
    """
    write_script(tmp_path, script)
    with Worker(tmp_path) as worker:
        worker.ready()
        worker.ask(b"")
        assert worker.next().kind == wire.TAKEN
        if how == "stop":
            worker.control.sendall(b'nonsense\n{"command": "other"}\n{"comm')
            worker.control.sendall(b'and": "stop"}\n')
        elif how == "SIGTERM":
            os.kill(worker.process.pid, signal.SIGTERM)
        else:
            worker.close_control()
        worker.ask(b"", request_id=2)
        (tmp_path / "go").touch()
        assert worker.next().kind == wire.ANSWER
        assert worker.process.wait(PATIENCE_S) == 0
        with pytest.raises(BlockingIOError):
            wire.receive(worker.replies)


def test_sigterm_ends_an_idle_worker_and_one_within_init(tmp_path: Path) -> None:
    write_script(tmp_path, ECHO)
    with Worker(tmp_path) as worker:
        worker.ready()
        os.kill(worker.process.pid, signal.SIGTERM)
        assert worker.process.wait(PATIENCE_S) == 0
    write_script(tmp_path, "import time\ndef init():\n    print('within')\n    time.sleep(60)\ndef run(raw): pass")
    with Worker(tmp_path) as worker:
        worker.wait_for_log("within")
        os.kill(worker.process.pid, signal.SIGTERM)
        assert worker.process.wait(PATIENCE_S) == -signal.SIGTERM


def test_an_orphan_that_never_ends_is_ended_by_the_kernel(tmp_path: Path) -> None:
    script = """
        import igw_worker.main
        igw_worker.main._ORPHAN_S = 0.1
        def run(raw):
            while True:
                pass
    """
    write_script(tmp_path, script)
    with Worker(tmp_path) as worker:
        worker.ready()
        worker.ask(b"")
        assert worker.next().kind == wire.TAKEN
        worker.close_control()
        assert worker.process.wait(PATIENCE_S) == -signal.SIGALRM


def test_prints_and_records_are_in_the_servers_format(tmp_path: Path) -> None:
    script = """
        import logging, sys
        def init():
            print("from init", 1, sep="-")
        def run(raw):
            print("half ", end="")
            print("and half\\nnext")
            print("rest", end="")
            print("raw", file=sys.stderr)
            logging.info("by the root logger")
            sys.stdout.write("straight\\n")
            return "ok"
    """
    write_script(tmp_path, script)
    with Worker(tmp_path) as worker:
        worker.ready().call(b"")
        log = worker.wait_for_log("azmlinfsrv.print - rest")
        pid = worker.process.pid
        for line in ("from init-1", "half and half", "next"):
            assert f" I [{pid}] azmlinfsrv.print - {line}\n" in log
        assert "\nraw\n" in log
        assert "\nstraight\n" in log
        assert f" I [{pid}] root - by the root logger\n" in log


def test_a_logging_json_of_the_user_replaces_ours(tmp_path: Path) -> None:
    config = {
        "version": 1,
        "formatters": {
            "mine": {"()": "azureml_inference_server_http.log_config.AMLLogFormatter", "fmt": "MINE %(message)s"}
        },
        "handlers": {"out": {"class": "logging.StreamHandler", "formatter": "mine"}},
        "loggers": {"azmlinfsrv": {"level": "INFO", "handlers": ["out"]}},
    }
    (tmp_path / "logging.json").write_text(json.dumps(config))
    write_script(tmp_path, ECHO)
    with Worker(tmp_path) as worker:
        worker.ready()
        worker.call(b"")
        worker.wait_for_log("MINE POST /score 200")


def test_cors_is_answered_where_it_is_asked_for(tmp_path: Path) -> None:
    write_script(tmp_path, ECHO)
    with Worker(tmp_path) as worker:
        worker.ready()
        assert worker.call(method="OPTIONS").head["status"] == 405
    with Worker(tmp_path, environment={"AML_CORS_ORIGINS": "https://a.example, https://b.example"}) as worker:
        worker.ready()
        asked = {"origin": "https://B.example", "access-control-request-headers": "x-a"}
        frame = worker.call(method="OPTIONS", headers=asked)
        assert frame.head["status"] == 200
        headers = headers_of(frame)
        assert headers["access-control-allow-origin"] == "https://B.example"
        assert headers["access-control-allow-methods"] == "GET, POST"
        assert headers["access-control-allow-headers"] == "x-a"
        frame = worker.call(b"x", headers={"origin": "https://c.example"})
        assert "access-control-allow-origin" not in headers_of(frame)


def test_neighbours_of_the_script_can_be_imported_and_dataclasses_work(tmp_path: Path) -> None:
    (tmp_path / "helper.py").write_text("WORD = 'top'")
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "near.py").write_text("WORD = 'near'")
    script = """
        from __future__ import annotations
        import os, sys
        from dataclasses import dataclass
        import helper, near

        @dataclass
        class Row:
            word: str

        def run(raw):
            clean = "IGW_WORKER_CONFIG" not in os.environ and not any("worker_lib" in entry for entry in sys.path)
            return [Row(helper.WORD).word, near.WORD, clean, os.environ["AML_APP_ROOT"]]
    """
    write_script(tmp_path, script, "src/score.py")
    with Worker(tmp_path, script="src/score.py") as worker:
        worker.ready()
        assert value_of(worker.call(b"")) == ["top", "near", True, str(tmp_path)]


def test_strange_frames_on_the_work_socket_are_dropped_and_an_unreadable_one_ends_the_worker(tmp_path: Path) -> None:
    write_script(tmp_path, ECHO)
    with Worker(tmp_path) as worker:
        worker.ready()
        wire.send(worker.work, wire.ANSWER, request_id=1)
        wire.send(worker.work, wire.REQUEST, request_id=1, scorer=5, head={})
        assert worker.call(b"x").head["status"] == 200
        assert worker.logged().count("Dropped") == 2
        worker.work.send(b"nonsense")
        assert worker.process.wait(10) == UNREADABLE


def test_an_answer_waits_until_its_scorer_reads(tmp_path: Path) -> None:
    write_script(tmp_path, ECHO)
    with Worker(tmp_path) as worker:
        worker.ready()
        count = 0
        with pytest.raises(BlockingIOError):
            while True:
                wire.send(worker.replies_end, wire.TAKEN, request_id=count, body=b"x" * 16_000)
                count += 1
        worker.ask(b"x", request_id=1000)
        frames = [worker.next().request_id for _ in range(count + 2)]
        assert frames[-2:] == [1000, 1000]


def test_the_raw_request_and_both_import_paths(tmp_path: Path) -> None:
    script = """
        from azureml.contrib.services.aml_request import AMLRequest, rawhttp
        from azureml.contrib.services.aml_response import AMLResponse
        import azureml_inference_server_http.api.aml_response as newer

        @rawhttp
        def run(request, request_headers):
            assert isinstance(request, AMLRequest) and newer.AMLResponse is AMLResponse
            text = f"{request.method} {request.full_path} {request.get_data(as_text=True)} {request_headers['X-A']}"
            return AMLResponse(text, 418, {"X-Many": "a,b"})
    """
    write_script(tmp_path, script)
    with Worker(tmp_path) as worker:
        worker.ready()
        frame = worker.call(b"body", method="DELETE", target="/score?a=1", headers={"x-a": "b"})
        assert frame.body == b"DELETE /score?a=1 body b"
        assert (frame.head["status"], frame.head["failed"]) == (418, False)
        assert [value for name, value in frame.head["headers"] if name == "x-many"] == ["a", "b"]
