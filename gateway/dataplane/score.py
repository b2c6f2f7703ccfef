"""A scoring request, from its head to its reply, as callbacks on plain data.

Why callbacks: a door with tasks (ASGI) and one without (a protocol class) call the same functions: `open` and `admit`
when the head is there, `submit` when the body is, `cancel` when the caller hangs up.
Promise: after `open` returned, exactly one of these ends the call: its reply, `fail`, `cancel`. Each gives the lease
and the seat back, once.
Units: *_ns monotonic nanoseconds; `now_s` for tokens is wall-clock seconds.
What answers is a model of this process or a worker that runs a scoring script; all but the bodies and headers is one
code for both. A script gets the request as it came, and its answer is passed on (script.py).
Errors: Problem, cheapest first: 401, 403, 404, 405, 413, 415, 503, 429 before the body; 400, 408, 424, 429 after.
"""

from __future__ import annotations

import logging
import time
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from random import random

from gateway.dataplane.body import inflate
from gateway.dataplane.codecs import Decoded, decode_score, decode_v2
from gateway.dataplane.head import Head
from gateway.dataplane.live import LiveDeployment, Target, no_tensors
from gateway.dataplane.mirror import Item, Mirror
from gateway.dataplane.paths import called, check_model
from gateway.dataplane.script import PATH, headers_for_script, headers_of_answer, is_success, preflight
from gateway.errors import Code, Problem, problem_of
from gateway.identity import RequestIds
from gateway.problem import azure_body, internal, v2_body
from runtimes import ModelFailed, RuntimeFault, Scheduler, ScriptRequest, WorkItem, now_ns

log = logging.getLogger(__name__)

GZIP_BYTES_MIN = 1024


class Reply:
    """What goes back: status, header lines as they are sent (names in lower case), body."""

    __slots__ = ("body", "lines", "status")

    def __init__(self, status: int, lines: bytes, body: bytes) -> None:
        self.status = status
        self.lines = lines
        self.body = body

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """The lines apart."""
        pairs = (line.split(b": ", 1) for line in self.lines.split(b"\r\n")[:-1])
        return [(name, value) for name, value in pairs]


class Call:
    """One scoring request under way. Made by `Scoring.open`; mutable, for one owner at a time."""

    __slots__ = (
        *("arrived_ns", "body", "deadline_ns", "decoded", "deployment", "done", "head", "is_v2", "item", "leased"),
        *("method", "mirror", "query", "reply", "request_id", "sampled", "seated", "submitted_ns", "target"),
    )

    def __init__(
        self,
        target: Target,
        deployment: LiveDeployment,
        head: Head,
        arrived_ns: int,
        method: str = "POST",
        query: bytes = b"",
    ) -> None:
        self.target = target
        self.deployment = deployment
        self.head = head
        self.method = method
        self.query = query
        self.arrived_ns = arrived_ns
        self.deadline_ns = arrived_ns + deployment.spec.request_timeout_ns
        self.is_v2 = target.is_v2
        self.mirror: LiveDeployment | None = None
        self.request_id = head.request_id
        self.body = b""
        self.decoded: Decoded | None = None
        self.item: Item | None = None
        self.reply: Callable[[Reply], None] | None = None
        self.submitted_ns = 0
        # What of it is collected (capture.py).
        self.sampled = 0
        self.leased = False
        self.seated = False
        self.done = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoringOptions:
    """How every request of this process is treated."""

    gzip: bool = False
    timeout_status: int = 408
    mirror_in_flight_max: int = 64


class Scoring:
    """The scoring path of one scorer."""

    def __init__(self, options: ScoringOptions, scheduler: Scheduler) -> None:
        self._ids = RequestIds()
        self._options = options
        self._scheduler = scheduler
        self._mirror = Mirror(self, options.mirror_in_flight_max, scheduler)

    def open(self, target: Target, head: Head, arrived_ns: int, method: str = "POST", query: bytes = b"") -> Call:
        """Decide who and where, from the head alone; holds a lease when it returns. Errors: Problem."""
        endpoint = target.endpoint
        authenticator = endpoint.authenticator
        if head.proven_by is not authenticator:
            authenticator.authenticate(head.authorization, time.time())
            if authenticator.is_lasting:
                head.proven_by = authenticator
        deployment, mirror = endpoint.choose(target.deployment or head.deployment, target.model)
        call = Call(target, deployment, head, arrived_ns, method, query)
        call.mirror = mirror
        if not call.request_id:
            call.request_id = self._ids.next()
        deployment.live.lease()
        call.leased = True
        return call

    def preflight(self, target: Target, headers: Sequence[tuple[bytes, bytes]]) -> Reply | None:
        """The answer to a browser's OPTIONS where the script allows pages of other origins, which takes neither
        credentials nor a worker; None where it is a request as any other."""
        endpoint, asked = target.endpoint, dict(headers)
        if b"authorization" in asked and b"access-control-request-method" not in asked:
            # No browser's question; it may be one for the script.
            return None
        wanted = asked.get(b"azureml-model-deployment", b"").decode("latin-1")
        try:
            # Not a turn of the traffic, which requests take.
            deployment = endpoint.choose(wanted)[0] if wanted else endpoint.heaviest()
        except Problem:
            return None
        script = deployment.spec.script
        if script is None or not script.cors_origins:
            return None
        endpoint.record.refused(200)
        lines = _lines(preflight(script, headers))
        return Reply(200, b"%bcontent-length: 0\r\n%b" % (lines, _names(self._ids.next(), None)), b"")

    def admit(self, call: Call) -> None:
        """Whether the deployment takes this request, decided before its body is read. Errors: Problem."""
        head, deployment = call.head, call.deployment
        if call.target.model:
            # Not asked of a mirror's copy, whose model may have another name.
            check_model(deployment, call.target.model)
        self.check_kind(call)
        head.check(deployment.spec.body_bytes_max, self._options.gzip)
        if head.timeout_ns:
            call.deadline_ns = min(call.deadline_ns, call.arrived_ns + head.timeout_ns)
        deployment.gate.check_room()
        try:
            deployment.live.runtime.check_room(call.deadline_ns, call.arrived_ns)
        except RuntimeFault as fault:
            raise problem_of(fault) from fault

    def check_kind(self, call: Call) -> None:
        """Whether what the deployment serves takes such a request at all. Errors: Problem."""
        if call.deployment.live.model is None:
            if call.is_v2:
                raise no_tensors(call.deployment)
        elif call.method != "POST":
            raise not_allowed(call.method, ("POST",))
        else:
            call.head.check_for_tensors()

    def submit(self, call: Call, body: bytes, reply: Callable[[Reply], None]) -> None:
        """Decode and hand over; `reply` is called once, later, unless this raises or the call is cancelled."""
        spec = call.deployment.spec
        call.deployment.record.request_bytes += len(body)
        if call.head.inflates:
            body = inflate(body, spec.body_bytes_max)
        capture = call.deployment.capture
        if capture is not None:
            call.sampled = capture.sample(random())
        if call.mirror is not None or call.sampled:
            call.body = body
        call.reply = reply
        self.hand_over(call, body, lambda item: self._finish(call, item), spec.queue_wait_ns)

    def hand_over(self, call: Call, body: bytes, on_item: Callable[[Item], None], queue_wait_ns: int) -> None:
        """Decode the body and give it to the runtime. Errors: Problem; the call is then still open."""
        deployment = call.deployment
        runtime = deployment.live.model
        if runtime is None:
            self._hand_to_script(call, body, on_item, queue_wait_ns)
            return
        signature = runtime.signature
        call.submitted_ns = now_ns()
        decode = decode_v2 if call.is_v2 else decode_score
        target = call.target
        name, version = called(deployment, target.model) if target.model else (target.endpoint.name, deployment.name)
        try:
            decoded = decode(body, call.head.header_length, signature, name, version)
            deployment.gate.enter()
            call.seated = True
            deployment.record.in_flight += 1
            if decoded.timeout_ns:
                call.deadline_ns = min(call.deadline_ns, call.arrived_ns + decoded.timeout_ns)
            call.decoded = decoded
            call.item = item = WorkItem(
                inputs=decoded.inputs,
                rows=decoded.rows,
                key=signature.key(decoded.inputs, decoded.outputs) if signature.batched else None,
                outputs=decoded.outputs,
                deadline_ns=call.deadline_ns,
                start_by_ns=call.submitted_ns + queue_wait_ns if queue_wait_ns else 0,
                reply=on_item,
            )
            runtime.submit(item)
        except RuntimeFault as fault:
            raise problem_of(fault) from fault

    def _hand_to_script(self, call: Call, body: bytes, on_item: Callable[[Item], None], queue_wait_ns: int) -> None:
        """Give the request as it came to the workers. Errors: Problem; the call is then still open."""
        deployment = call.deployment
        scripts = deployment.live.scripts
        assert scripts is not None
        call.submitted_ns = now_ns()
        has_body = bool(body) or call.method == "POST"
        query = call.query.decode("latin-1")
        try:
            deployment.gate.enter()
            call.seated = True
            deployment.record.in_flight += 1
            call.item = request = ScriptRequest(
                method=call.method,
                target=f"{PATH}?{query}" if query else PATH,
                headers=headers_for_script(call.head, call.request_id, len(body) if has_body else None),
                body=body,
                deadline_ns=call.deadline_ns,
                reply=on_item,
                start_by_ns=call.submitted_ns + queue_wait_ns if queue_wait_ns else 0,
                request_id=call.request_id,
                client_request_id=call.head.client_id.decode(),
            )
            scripts.submit(request)
        except RuntimeFault as fault:
            raise problem_of(fault) from fault

    def cancel(self, call: Call) -> None:
        """The caller hung up: its work is not run, unless it runs already; no reply follows."""
        if call.done:
            return
        call.done = True
        if call.item is not None:
            call.deployment.live.cancel(call.item)
        call.deployment.record.hung_up()
        self.close(call)

    def fail(self, call: Call, problem: Problem) -> Reply:
        """End the call with a refusal."""
        call.done = True
        reply = self.refuse(call.target, problem, call)
        self.close(call)
        return reply

    def refuse(self, target: Target | None, problem: Problem, call: Call | None = None, is_v2: bool = False) -> Reply:
        """A refusal as bytes, counted where it belongs."""
        request_id = call.request_id if call is not None and call.request_id else self._ids.next()
        speaks_v2 = target.is_v2 if target is not None else is_v2
        body = (v2_body if speaks_v2 else azure_body)(problem, request_id)
        status = problem.code.status
        if problem.code is Code.DEADLINE_EXCEEDED:
            status = self._options.timeout_status
        if target is not None:
            record = target.endpoint.record
            if problem.code not in (Code.MODEL_FAILED, Code.INTERNAL):
                record.rejected(problem.reason)
            if call is not None:
                call.deployment.record.answered(status, now_ns() - call.arrived_ns)
            else:
                record.refused(status)
        lines = b"content-type: application/json\r\ncontent-length: %d\r\n%b%b" % (
            len(body),
            _names(request_id, call),
            _lines(problem.headers),
        )
        return Reply(status, lines, body)

    def _finish(self, call: Call, item: Item) -> None:
        """The runtime's reply: encode, count, answer, and copy to the mirror and to what is collected."""
        if call.done:
            return
        try:
            reply = self._answer(call, item) if isinstance(item, WorkItem) else self._answer_of_script(call, item)
        except Problem as problem:
            reply = self.fail(call, problem)
        except Exception:
            log.exception("request %s failed", call.request_id)
            reply = self.fail(call, internal())
        answer, call.reply = call.reply, None
        assert answer is not None
        answer(reply)
        if call.mirror is not None:
            self._mirror.copy(call, item)
        if call.sampled and _was_asked(item):
            # In a later turn: the answer leaves at the end of this one.
            self._scheduler.call_soon(lambda: self._collect(call, reply))

    def _collect(self, call: Call, reply: Reply) -> None:
        assert call.deployment.capture is not None
        try:
            call.deployment.capture.take(call, reply, time.time(), now_ns())
        except Exception:
            log.exception("request %s could not be collected", call.request_id)

    def _answer(self, call: Call, item: WorkItem) -> Reply:
        if item.fault is not None:
            raise problem_of(item.fault)
        assert item.results is not None
        assert call.decoded is not None
        began_ns = now_ns()
        encoded = call.decoded.encode(item.results)
        body = encoded.body
        more = _lines(encoded.headers) if encoded.headers else b""
        if call.head.accepts_gzip and len(body) >= GZIP_BYTES_MIN:
            body = _deflate(body)
            more += b"content-encoding: gzip\r\nvary: accept-encoding\r\n"
        lines = b"content-type: %b\r\n%bcontent-length: %d\r\n%b" % (
            encoded.content_type,
            more,
            len(body),
            _names(call.request_id, call),
        )
        ended_ns = now_ns()
        if ended_ns > call.deadline_ns:
            raise Problem(
                Code.DEADLINE_EXCEEDED, "the answer was not ready before the request's deadline", reason="deadline"
            )
        record = call.deployment.record
        record.response_bytes += len(body)
        record.answered(
            200,
            ended_ns - call.arrived_ns,
            item.enqueued_ns - call.submitted_ns,
            item.batched_ns - item.enqueued_ns,
            item.finished_ns - item.started_ns,
            ended_ns - began_ns,
            item.started_ns - item.batched_ns,
        )
        call.done = True
        self.close(call)
        return Reply(200, lines, body)

    def _answer_of_script(self, call: Call, request: ScriptRequest) -> Reply:
        if request.fault is not None:
            raise problem_of(request.fault)
        answer = request.answer
        assert answer is not None
        began_ns = now_ns()
        body = bytes(answer.body)
        headers = headers_of_answer(answer)
        is_encoded = any(name == b"content-encoding" for name, _ in headers)
        if call.head.accepts_gzip and not is_encoded and len(body) >= GZIP_BYTES_MIN:
            body = _deflate(body)
            headers += [(b"content-encoding", b"gzip"), (b"vary", b"accept-encoding")]
        lines = b"%bcontent-length: %d\r\n%b" % (_lines(headers), len(body), _names(call.request_id, call))
        ended_ns = now_ns()
        if ended_ns > call.deadline_ns:
            raise Problem(
                Code.DEADLINE_EXCEEDED, "the answer was not ready before the request's deadline", reason="deadline"
            )
        status = 200 if is_success(answer) else Code.MODEL_FAILED.status
        run_ns = round(answer.run_ms * 1_000_000)
        waited_ns = request.finished_ns - request.submitted_ns - run_ns
        record = call.deployment.record
        record.response_bytes += len(body)
        record.answered(status, ended_ns - call.arrived_ns, 0, waited_ns, run_ns, ended_ns - began_ns)
        call.done = True
        self.close(call)
        return Reply(status, lines, body)

    def close(self, call: Call) -> None:
        """Give back what the call holds; more than once does no harm."""
        # The item's reply leads back to the call: without this, every request would be left to the garbage collector.
        call.item = None
        if call.seated:
            call.seated = False
            call.deployment.record.in_flight -= 1
            call.deployment.gate.leave()
        if call.leased:
            call.leased = False
            call.deployment.live.release()


def _was_asked(item: Item) -> bool:
    """Whether an instance or a worker had it. What waited in vain is refused as it is on arrival."""
    if item.fault is None or isinstance(item.fault, ModelFailed):
        return True
    return item.started_ns > 0 if isinstance(item, WorkItem) else item.is_taken


def not_allowed(method: str, allowed: Sequence[str]) -> Problem:
    return Problem(
        Code.METHOD_NOT_ALLOWED,
        f"{method} is not allowed here; send {' or '.join(allowed)}" + (" with a body" if len(allowed) == 1 else ""),
        headers=((b"allow", ", ".join(allowed).encode()),),
    )


def _names(request_id: str, call: Call | None) -> bytes:
    """The header lines that say which request this was and who answered it."""
    identity = request_id.encode()
    if call is None:
        return b"x-request-id: %b\r\nx-ms-request-id: %b\r\n" % (identity, identity)
    head = call.head
    named = (identity, head.client_id or identity, call.deployment.line, head.echo)
    return b"x-request-id: %b\r\nx-ms-request-id: %b\r\n%b%b" % named


def _lines(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    return b"".join([b"%b: %b\r\n" % pair for pair in headers])


def _deflate(body: bytes) -> bytes:
    engine = zlib.compressobj(level=1, wbits=31)
    return engine.compress(body) + engine.flush()
