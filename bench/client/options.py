"""What `gateway bench` may be told: one table of flags, and their texts read into one frozen value.

Why here: the command line makes its flags from the table and knows nothing of measuring; this module loads only
the standard library, so that `gateway --help` stays quick.
Units: *_s seconds, *_ms milliseconds, rates requests a second, ratios parts of one.
Errors: Misused, with every mistake as one sentence.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

KEY_VARIABLE = "GATEWAY_KEY"
WIRES = ("azure", "v2-json", "v2-binary")
ARRIVALS = ("poisson", "constant")
CONNECTIONS = 64
# An open loop needs one for every request that a slow server has not answered yet.
OPEN_CONNECTIONS = 256
CONNECTIONS_MAX = 60_000
RATE_MAX = 1_000_000.0
ERROR_RATIO_MAX = 0.01


class Misused(Exception):
    """Flags that do not make sense; each problem is one sentence."""

    def __init__(self, *problems: str) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag:
    """One flag: its Python name, what it does, and the symbol of its value ("" for a switch)."""

    name: str
    what: str
    symbol: str = ""
    many: bool = False


FLAGS = (
    Flag(
        name="connections", symbol="N[,N...]", what="Keep-alive connections; without --rate a closed loop [64; 256]."
    ),
    Flag(name="rate", symbol="R[,R...]", what="Open loop: requests a second, timed from when each was meant to go."),
    Flag(name="arrivals", symbol="KIND", what="Of an open loop: poisson or constant [poisson]."),
    Flag(name="duration", symbol="SECONDS", what="Measured time of a step [until settled: 3 to 8 windows]."),
    Flag(name="warm_up", symbol="SECONDS", what="Before each step, not counted [1]."),
    Flag(name="window", symbol="SECONDS", what="Length of the windows that are compared [2]."),
    Flag(name="windows_max", symbol="N", what="Longest step, where it does not settle [8]."),
    Flag(name="tolerance", symbol="RATIO", what="Throughputs of 3 windows that agree differ by at most this [0.1]."),
    Flag(name="p99_tolerance", symbol="RATIO", what="The same of their p99s [0.25]."),
    Flag(name="find_rate", what="Search the highest rate with p99 within --slo-p99-ms."),
    Flag(name="slo_p99_ms", symbol="MS", what="Longest p99 of accepted requests; exit status 1 where it is not met."),
    Flag(name="max_error_ratio", symbol="RATIO", what="Of requests that were not accepted; exit status 1 above it."),
    Flag(name="precision", symbol="RATIO", what="How close --find-rate comes [0.05]."),
    Flag(name="max_rate", symbol="R", what="Where --find-rate stops [1000000]."),
    Flag(name="format", symbol="FORMAT", what="azure, v2-json or v2-binary [as URL says]."),
    Flag(name="model", symbol="NAME", what="Whose metadata describes the inputs, where URL does not say it."),
    Flag(name="deployment", symbol="NAME", what="Sent as azureml-model-deployment."),
    Flag(name="rows", symbol="N", what="Rows of a generated request [1]."),
    Flag(name="variants", symbol="N", what="How many different requests to generate [16]."),
    Flag(name="seed", symbol="N", what="Of generated numbers and arrivals [0]."),
    Flag(name="shape", symbol="INPUT=D,D...", many=True, what="An input's shape without rows, where sizes are free."),
    Flag(name="data", symbol="FILE", what="A request body, or JSON lines of bodies, instead of generated ones."),
    Flag(name="content_type", symbol="TYPE", what="Of the bodies in --data."),
    Flag(name="header", symbol="NAME:VALUE", many=True, what="One more header; may be given again."),
    Flag(name="replay", symbol="FILE", what="Recorded traffic: JSON lines with at_s and body; see docs/bench.md."),
    Flag(name="speed", symbol="FACTOR", what="Of --replay: 2 is twice as fast [1]."),
    Flag(name="ca", symbol="FILE", what="PEM file of the authority to trust [the system's]."),
    Flag(name="insecure", what="Do not check the server's certificate."),
    Flag(name="key", symbol="KEY", what=f"Key or token; better in the environment [{KEY_VARIABLE}]."),
    Flag(name="timeout", symbol="SECONDS", what="Longest wait for an answer; counted when it passes [10]."),
    Flag(name="drain", symbol="SECONDS", what="Wait at the end for what is not answered yet [10]."),
    Flag(name="processes", symbol="N", what="Generator processes [one for each core it may use]."),
    Flag(name="expect_same", what="Equal requests must get equal bodies; exit status 1 where not."),
    Flag(name="json", symbol="FILE", what="Write the report as JSON."),
    Flag(name="html", symbol="FILE", what="Write the report as one self-contained page."),
    Flag(name="quiet", what="No progress on stderr."),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """A whole, sensible command. Lists hold one value where nothing is swept; no rates: a closed loop."""

    url: str
    connections: tuple[int, ...] = (CONNECTIONS,)
    rates: tuple[float, ...] = ()
    arrivals: str = "poisson"
    duration_s: float | None = None
    warm_up_s: float = 1.0
    window_s: float = 2.0
    windows_max: int = 8
    tolerance: float = 0.10
    p99_tolerance: float = 0.25
    find_rate: bool = False
    slo_p99_ms: float | None = None
    max_error_ratio: float | None = None
    precision: float = 0.05
    max_rate: float = RATE_MAX
    wire: str | None = None
    model: str | None = None
    deployment: str | None = None
    rows: int = 1
    variants: int = 16
    seed: int = 0
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    data: Path | None = None
    content_type: str | None = None
    # Values may be secrets; the key is one.
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    key: str | None = field(default=None, repr=False)
    replay: Path | None = None
    speed: float = 1.0
    ca: Path | None = None
    insecure: bool = False
    timeout_s: float = 10.0
    drain_s: float = 10.0
    processes: int | None = None
    expect_same: bool = False
    json: Path | None = None
    html: Path | None = None
    quiet: bool = False

    @property
    def is_open(self) -> bool:
        """Requests go when they are meant to, whether or not others were answered."""
        return bool(self.rates) or self.replay is not None


def read(url: str, given: Mapping[str, object], environ: Mapping[str, str]) -> Options:
    """`given` has a text, a list of texts, True or None for the flags' names. Errors: Misused."""
    reader = _Reader(given)
    is_open = bool(given.get("rate") or given.get("replay") or given.get("find_rate"))
    find_rate = bool(given.get("find_rate"))
    options = Options(
        url=url,
        connections=reader.numbers(
            "connections", _count(CONNECTIONS_MAX), (OPEN_CONNECTIONS if is_open else CONNECTIONS,)
        ),
        rates=reader.numbers("rate", _real(0.001, RATE_MAX), (100.0,) if find_rate else ()),
        arrivals=reader.choice("arrivals", ARRIVALS, "poisson") or "poisson",
        duration_s=reader.one("duration", _real(0.05, 86_400), None),
        warm_up_s=reader.one("warm_up", _real(0, 3600), 0.0 if given.get("replay") else 1.0),
        window_s=reader.one("window", _real(0.1, 3600), 2.0),
        windows_max=reader.one("windows_max", _count(10_000), 8),
        tolerance=reader.one("tolerance", _real(0.001, 10), 0.10),
        p99_tolerance=reader.one("p99_tolerance", _real(0.001, 10), 0.25),
        find_rate=find_rate,
        slo_p99_ms=reader.one("slo_p99_ms", _real(0.001, 600_000), None),
        max_error_ratio=reader.one("max_error_ratio", _real(0, 1), None),
        precision=reader.one("precision", _real(0.001, 1), 0.05),
        max_rate=reader.one("max_rate", _real(1, RATE_MAX), RATE_MAX),
        wire=reader.choice("format", WIRES, None),
        model=reader.text("model"),
        deployment=reader.text("deployment"),
        rows=reader.one("rows", _count(1_000_000), 1),
        variants=reader.one("variants", _count(100_000), 16),
        seed=reader.one("seed", _count(2**31, least=0), 0),
        shapes=dict(reader.each("shape", _shape)),
        data=reader.path("data"),
        content_type=reader.text("content_type"),
        headers=tuple(reader.each("header", _header)),
        key=_key(given, environ),
        replay=reader.path("replay"),
        speed=reader.one("speed", _real(0.001, 1000), 1.0),
        ca=reader.path("ca"),
        insecure=bool(given.get("insecure")),
        timeout_s=reader.one("timeout", _real(0.01, 600), 10.0),
        drain_s=reader.one("drain", _real(0, 600), 10.0),
        processes=reader.one("processes", _count(1024), None),
        expect_same=bool(given.get("expect_same")),
        json=reader.path("json"),
        html=reader.path("html"),
        quiet=bool(given.get("quiet")),
    )
    problems = (*reader.problems, *_contradictions(options, given))
    if problems:
        raise Misused(*problems)
    return options


def _contradictions(options: Options, given: Mapping[str, object]) -> Sequence[str]:
    found = []
    if options.find_rate and options.slo_p99_ms is None:
        found.append("--find-rate searches within a limit; give it with --slo-p99-ms")
    if options.find_rate and (len(options.rates) > 1 or len(options.connections) > 1):
        found.append("--find-rate starts from one --rate and uses one number of --connections, not lists of them")
    if options.rates and len(options.connections) > 1:
        found.append("one list at a time: --connections is swept in a closed loop, --rate in an open one")
    if options.replay and (options.rates or options.data):
        found.append("--replay has its own times and bodies; leave out --rate, --find-rate and --data")
    if options.replay and len(options.connections) > 1:
        found.append("--replay uses one number of --connections, not a list")
    if given.get("speed") and not options.replay:
        found.append("--speed is of --replay FILE, which is not given")
    if given.get("arrivals") and not options.rates:
        found.append("--arrivals is of an open loop; give --rate or --find-rate")
    if options.insecure and options.ca:
        found.append("--insecure checks no certificate and --ca says which to trust; give one of them")
    if options.content_type and not options.data:
        found.append("--content-type is of the bodies in --data FILE, which is not given")
    return found


def _key(given: Mapping[str, object], environ: Mapping[str, str]) -> str | None:
    key = given.get("key") or environ.get(KEY_VARIABLE)
    return str(key).strip() if key else None


class _Reader:
    """Takes texts apart; a mistake is noted, and the default taken so that the next one is found too."""

    def __init__(self, given: Mapping[str, object]) -> None:
        self._given = given
        self.problems: list[str] = []

    def text(self, name: str) -> str | None:
        value = self._given.get(name)
        return str(value) if value is not None else None

    def path(self, name: str) -> Path | None:
        text = self.text(name)
        return Path(text) if text else None

    def choice(self, name: str, accepted: Sequence[str], default: str | None) -> str | None:
        text = self.text(name)
        if text is None or text in accepted:
            return text or default
        self._refuse(name, text, f"one of {', '.join(accepted)}")
        return default

    def one(self, name: str, parse: Callable[[str], T], default: T) -> T:
        text = self.text(name)
        if text is None:
            return default
        try:
            return parse(text)
        except ValueError as error:
            self._refuse(name, text, str(error))
            return default

    def numbers(self, name: str, parse: Callable[[str], T], default: tuple[T, ...]) -> tuple[T, ...]:
        text = self.text(name)
        if text is None:
            return default
        try:
            return tuple(parse(part) for part in text.split(","))
        except ValueError as error:
            self._refuse(name, text, f"{error}, or several with commas between")
            return default

    def each(self, name: str, parse: Callable[[str], T]) -> list[T]:
        values = self._given.get(name)
        found = []
        for text in values if isinstance(values, list | tuple) else ():
            try:
                found.append(parse(str(text)))
            except ValueError as error:
                # A header's value may be a secret: only its name is repeated.
                self._refuse(name, str(text).partition(":")[0] if name == "header" else str(text), str(error))
        return found

    def _refuse(self, name: str, text: str, accepted: str) -> None:
        self.problems.append(f"--{name.replace('_', '-')}: found {text!r}; accepted: {accepted}")


def _count(most: int, least: int = 1) -> Callable[[str], int]:
    def parse(text: str) -> int:
        accepted = ValueError(f"a whole number from {least} to {most}")
        try:
            number = int(text)
        except ValueError:
            raise accepted from None
        if not least <= number <= most:
            raise accepted
        return number

    return parse


def _real(least: float, most: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        accepted = ValueError(f"a number from {least:g} to {most:g}")
        try:
            number = float(text)
        except ValueError:
            raise accepted from None
        if not (math.isfinite(number) and least <= number <= most):
            raise accepted
        return number

    return parse


def _shape(text: str) -> tuple[str, tuple[int, ...]]:
    name, given, sizes = text.partition("=")
    try:
        shape = tuple(int(size) for size in sizes.split(",") if size)
    except ValueError:
        shape = (0,)
    if not (given and name) or any(size < 1 for size in shape):
        raise ValueError("an input's name and its sizes without rows, such as pixels=3,224,224")
    return name, shape


def _header(text: str) -> tuple[str, str]:
    name, given, value = text.partition(":")
    name, value = name.strip().lower(), value.strip()
    if not given or not name or any(char.isspace() for char in name) or {"\r", "\n"} & set(value):
        raise ValueError("a name and a value, such as 'x-trace: 1'")
    if name in ("content-length", "transfer-encoding", "connection"):
        raise ValueError("any header but those that frame the request")
    return name, value
