"""Logs: one record one line, in UTC, without secrets, in both formats."""

from __future__ import annotations

import io
import logging
import sys
import warnings
from collections.abc import Iterator
from datetime import datetime

import orjson
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from gateway.telemetry.logs import REDACTED, configure, one_line, redact

KEY = "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8s9T0u1V"
TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJkaWdpdHMifQ.c2lnbmF0dXJlLW9mLXRoZS10b2tlbg"
FOREIGN = ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi", "httpx", "httpcore", "watchfiles", "asyncio")


@pytest.fixture(autouse=True)
def _restore_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    before = {name: (logging.getLogger(name).level, logging.getLogger(name).disabled) for name in FOREIGN}
    yield
    logging.captureWarnings(False)
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, (old_level, disabled) in before.items():
        logging.getLogger(name).setLevel(old_level)
        logging.getLogger(name).disabled = disabled


def _written(format: str, level: int, message: str, *args: object, process: str = "", **more: object) -> str:
    stream = io.StringIO()
    configure("debug", format, process, stream)
    logging.getLogger("gateway.test").log(level, message, *args, **more)  # type: ignore[arg-type]
    return stream.getvalue()


def test_a_text_line_has_time_level_logger_message_and_fields() -> None:
    line = _written("text", logging.WARNING, "%d of %s", 1, "two", process="scorer 0", extra={"request_id": "r1"})
    when, rest = line.split(" ", 1)
    assert datetime.fromisoformat(when).utcoffset() is not None
    assert when.endswith("Z")
    assert len(when) == len("2026-01-31T12:00:00.000Z")
    assert rest == "WARNING gateway.test 1 of two process=scorer 0 request_id=r1\n"


def test_a_json_line_is_one_object() -> None:
    extra = {"n": 3, "flag": True, "none": None, "path": ["a"], "message_id": "x"}
    line = orjson.loads(_written("json", logging.INFO, "hello %s", "you", process="supervisor", extra=extra))
    assert datetime.fromisoformat(line.pop("time")).utcoffset() is not None
    assert line == {
        "level": "info",
        "logger": "gateway.test",
        "message": "hello you",
        "process": "supervisor",
        "n": 3,
        "flag": True,
        "none": None,
        "path": "['a']",
        "message_id": "x",
    }


HOSTILE = st.text(
    st.one_of(st.characters(), st.sampled_from("\r\n\x00\x0b\x0c\x1b\x1c\x1d\x1e\x7f\x85\u2028\u2029\u202e\ud800")),
    max_size=60,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(HOSTILE, HOSTILE)
@example("a\r\n2026-01-31T12:00:00.000Z ERROR gateway.fleet \u2028forged\x00", "\x1b[31m")
def test_whatever_a_caller_sends_stays_on_one_line(text: str, field: str) -> None:
    for format in ("text", "json"):
        written = _written(format, logging.ERROR, "deployment %s", text, extra={"client_id": field})
        assert written.endswith("\n")
        assert len(written.splitlines()) == 1
        assert not any(ord(char) < 32 or 0x7F <= ord(char) < 0xA0 for char in written[:-1])
        assert written.encode()


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=60))
def test_json_gives_back_what_was_said(text: str) -> None:
    written = _written("json", logging.ERROR, "%s", text)
    assert orjson.loads(written)["message"] == redact(text)


def test_an_exception_is_part_of_its_line() -> None:
    for format in ("text", "json"):
        try:
            raise ValueError(f"Bearer {KEY}\nsecond line")
        except ValueError:
            written = _written(format, logging.ERROR, "it failed", exc_info=True, stack_info=True)
        assert len(written.splitlines()) == 1
        assert "Traceback" in written
        assert "second line" in written
        assert "Stack (most recent call last)" in written
        assert KEY not in written


class _Unwritable:
    def __str__(self) -> str:
        raise RuntimeError(KEY)


@pytest.mark.parametrize("args", [("not a number",), (_Unwritable(),)])
def test_a_record_that_cannot_be_written_is_still_a_line(args: tuple[object, ...]) -> None:
    template = "%d things" if args == ("not a number",) else "%s things"
    written = _written("text", logging.ERROR, template, *args)
    assert f"{template} (its arguments could not be written:" in written
    assert KEY not in written


def test_numbers_past_64_bits_are_written_as_text() -> None:
    line = orjson.loads(_written("json", logging.ERROR, "big", extra={"n": 2**70}))
    assert line["n"] == str(2**70)


def test_a_stream_that_is_gone_takes_nobody_with_it(capsys: pytest.CaptureFixture[str]) -> None:
    stream = io.StringIO()
    configure("info", "text", stream=stream)
    stream.close()
    logging.getLogger("gateway.test").error("nobody hears this")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "text",
    [
        f"Authorization: Bearer {KEY}",
        f"authorization:{KEY}",
        f"AUTHORIZATION = {KEY}",
        f"bearer {KEY}",
        f"Bearer   {KEY} and {KEY}",
        f"[(b'authorization', b'Bearer {KEY}'), (b'host', b'x')]",
        f"{{'authorization': '{KEY}'}}",
        f'{{"Proxy-Authorization": "Basic {KEY}"}}',
        f"headers[b'authorization'] = b'{KEY}'",
        f"x-api-key: {KEY}",
        f"Cookie: session={KEY}",
        f'{{"primaryKey": "{KEY}", "secondaryKey": "{KEY}"}}',
        f"primary_key={KEY}",
        f"GET https://gateway/score?code={KEY}&x=1",
        f"https://gateway/?a=1&access_token={KEY}",
        f"token {TOKEN} was refused",
        f"token igm_{KEY} was refused",
        f"https://gateway/blob/c/x?sv=1&sig={KEY}",
        f"Authorization:\r\n Bearer {KEY}",
    ],
)
def test_secrets_are_not_written(text: str) -> None:
    for format in ("text", "json"):
        written = _written(format, logging.ERROR, "%s", text, extra={"field": text})
        assert KEY not in written
        assert TOKEN not in written
        assert TOKEN.split(".")[2] not in written
        assert written.count(REDACTED) >= 2


@pytest.mark.parametrize(
    "text",
    [
        "endpoint digits takes a key in the Authorization header",
        "the primary key of digits was made",
        "https://127.0.0.1:8443/endpoints/digits/score?x=1",
        "status code 404",
        "",
    ],
)
def test_plain_words_stay(text: str) -> None:
    assert redact(text) == text


def test_what_surrounds_a_secret_stays() -> None:
    assert redact(f"(b'authorization', b'Bearer {KEY}'), (b'host', b'x')") == (
        f"(b'authorization', b'{REDACTED}'), (b'host', b'x')"
    )
    assert redact(f"/score?code={KEY}&x=1") == f"/score?code={REDACTED}&x=1"


def test_escapes_are_readable() -> None:
    assert one_line("a\nb\rc\td\x00e\u2028f") == "a\\nb\\rc\\td\\u0000e\\u2028f"


def test_below_the_level_nothing_is_written() -> None:
    stream = io.StringIO()
    configure("warning", "text", stream=stream)
    logging.getLogger("gateway.test").info("quiet")
    assert stream.getvalue() == ""


def test_foreign_loggers_write_through_ours_and_only_what_matters() -> None:
    foreign = logging.getLogger("uvicorn.error")
    foreign.addHandler(logging.NullHandler())
    foreign.propagate = False
    stream = io.StringIO()
    configure("info", "text", stream=stream)
    foreign.info("Started server process")
    logging.getLogger("uvicorn.access").warning("GET /whatever")
    logging.getLogger("httpx").info("HTTP Request: GET https://issuer")
    foreign.warning("it matters")
    assert [line.split(" ", 1)[1] for line in stream.getvalue().splitlines()] == ["WARNING uvicorn.error it matters"]


def test_python_warnings_become_records() -> None:
    stream = io.StringIO()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        configure("info", "text", stream=stream)
        warnings.warn("look here", stacklevel=1)
        logging.captureWarnings(False)
    assert "WARNING py.warnings" in stream.getvalue()
    assert len(stream.getvalue().splitlines()) == 1


def test_configuring_again_replaces_and_the_default_is_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", "text", stream=io.StringIO())
    configure("info", "text")
    logging.getLogger("gateway.test").info("once")
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("once") == 1
    ours = [handler for handler in logging.getLogger().handlers if isinstance(handler, logging.StreamHandler)]
    assert [handler.stream for handler in ours] == [sys.stderr]


@pytest.mark.parametrize(
    ("level", "format", "message"),
    [
        ("loud", "text", "the log level is 'loud'; it is one of debug, info, warning, error"),
        ("info", "xml", "the log format is 'xml'; it is one of text, json"),
    ],
)
def test_a_wrong_setting_says_what_would_be_right(level: str, format: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        configure(level, format)
