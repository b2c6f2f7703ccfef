"""How this process runs: defaults < file < environment < arguments, in one frozen value that knows its sources.

The one file that reads the environment for settings. Every source speaks text, and each setting has one parser for
all of them. A field's metadata is its documentation (docs/reference/settings.md and the help of `gateway serve`).
Units go last in a name: *_bytes bytes, *_s seconds; sizes are in bytes as they travel.
Errors: SettingsError with every problem at once, each with its source, what was found and what would be accepted.
"""

# ruff: noqa: RUF009 - `_setting` returns dataclasses.field(...), so the defaults are no shared values

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast
from urllib.parse import urlsplit

from gateway.suggest import did_you_mean, nearest

PREFIX = "GATEWAY_"
CONFIG_VARIABLE = f"{PREFIX}CONFIG"
# A key for `gateway bench`, what seals the secrets of the store, where commands find a gateway; how a wheel is built.
_NOT_SETTINGS = (
    CONFIG_VARIABLE,
    *(PREFIX + name for name in ("KEY", "MASTER_KEY", "MASTER_KEY_OLD", "URL", "TOKEN", "CA", "COMPILE")),
)

_MIB = 1024 * 1024
# Kubernetes sets these in every pod beside a Service called "gateway" or "gateway-x"; they are no settings.
_SERVICE_LINKS = re.compile(
    r"GATEWAY_([A-Z0-9_]+_)?(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)"
)


class SettingsError(Exception):
    """Why the process cannot run as told; `problems` holds one sentence each."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Listen:
    """Where a listener listens. Port 0 takes a free one; scheme http turns TLS off."""

    scheme: Literal["http", "https"]
    host: str
    port: int

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"

    def __str__(self) -> str:
        return self.url


@dataclass(frozen=True, slots=True)
class DatabaseUrl:
    """Where the store is. As text it shows no password."""

    url: str = field(repr=False)

    def __str__(self) -> str:
        # Up to the last @, for a password may hold one; and where a parameter is the password.
        hidden = re.sub(r"(?<=://)([^:/@]*):.*@", r"\1:***@", self.url, flags=re.DOTALL)
        return re.sub(r"(password=)[^&]*", r"\1***", hidden, flags=re.IGNORECASE)

    def __bool__(self) -> bool:
        return bool(self.url)


@dataclass(frozen=True, slots=True)
class Parser:
    """Text to value; `read` raises ValueError on anything that `accepts` does not cover. `symbol` is for help."""

    symbol: str
    accepts: str
    read: Callable[[str], Any]


@dataclass(frozen=True, slots=True)
class About:
    """A setting's documentation and parser. `applies` says what makes a new value count."""

    what: str
    parser: Parser
    applies: str


def _listen(text: str) -> Listen:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError
    host = parts.hostname or ""
    if not re.fullmatch(r"[0-9A-Za-z._:%-]+", host) or parts.port is None or "@" in parts.netloc:
        raise ValueError
    return Listen(cast('Literal["http", "https"]', parts.scheme), host, parts.port)


def _flag(text: str) -> bool:
    return {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}[
        text.lower()
    ]


def _names(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if any(re.search(r"[\s/]", name) for name in names):
        raise ValueError
    return names


def _host_suffix(text: str) -> str:
    name = text.strip(".").lower()
    if not re.fullmatch(r"([a-z0-9]([-a-z0-9]*[a-z0-9])?)(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*", name):
        raise ValueError
    return name


def _path(text: str) -> Path:
    if not text.strip() or "\0" in text:
        raise ValueError
    return Path(text).expanduser()


def _integer(low: int, high: int) -> Parser:
    def read(text: str) -> int:
        value = int(text)
        if not low <= value <= high:
            raise ValueError
        return value

    return Parser("N", f"an integer from {low} to {high}", read)


def _seconds(low: float, high: float) -> Parser:
    def read(text: str) -> float:
        value = float(text)
        if not low <= value <= high:  # false for NaN too
            raise ValueError
        return value

    return Parser("SECONDS", f"seconds from {low:g} to {high:g}", read)


def _choice(*choices: str) -> Parser:
    return Parser(
        "|".join(choices), f"one of {', '.join(choices)}", lambda text: choices[choices.index(text.lower())]
    )


def _status(text: str) -> int:
    return {"408": 408, "504": 504}[text]


def _web_url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError
    return text.rstrip("/")


def _database(text: str) -> DatabaseUrl:
    if text and urlsplit(text).scheme.split("+")[0] not in ("postgresql", "sqlite"):
        raise ValueError
    return DatabaseUrl(text)


def _folders(text: str) -> tuple[str, ...]:
    return tuple(str(_path(name.strip())) for name in text.split(",") if name.strip())


_URL = Parser(
    "URL", "a URL such as https://127.0.0.1:8443 or http://[::1]:0 (scheme http or https, host, port)", _listen
)
FLAG = Parser("", "true or false", _flag)
_FILE = Parser("FILE", "a file", _path)
_FOLDER = Parser("DIR", "a folder", _path)
_TEXT = Parser("TEXT", "text", str)
_NAMES = Parser("NAMES", "host names and IP addresses, with commas between", _names)
_DOMAIN = Parser("DOMAIN", "a domain name such as models.example.org", _host_suffix)
_WEB_URL = Parser("URL", "a URL such as https://models.example.org", _web_url)
_DATABASE = Parser("URL", "postgresql://user:password@host/name or sqlite:///path", _database)
_FOLDERS = Parser("DIRS", "folders, with commas between", _folders)
_PATHS = (_FILE, _FOLDER)
_LISTS = (_NAMES, _FOLDERS)


def _setting(default: Any, parser: Parser, what: str, *, applies: str = "restart") -> Any:
    return field(default=default, metadata={"about": About(what, parser, applies)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings of a process. `sources` tells where each value came from, by field name."""

    apply: Path | None = _setting(
        None,
        _FOLDER,
        "Folder of Azure ML YAML to serve.",
        applies="restart; its content: reload",
    )
    state: Path = _setting(
        Path(".gateway"), _FOLDER, "Folder for keys, certificates and the control socket; made if missing."
    )
    scoring: Listen = _setting(
        Listen("https", "127.0.0.1", 8443),
        _URL,
        "Where scoring requests are taken. Port 0 takes a free one, scheme http turns TLS off.",
    )
    management: Listen = _setting(
        Listen("https", "127.0.0.1", 8444), _URL, "Where management requests are taken; keep it private."
    )
    telemetry: Listen = _setting(
        Listen("http", "127.0.0.1", 9464), _URL, "Where /metrics and the health routes are, without credentials."
    )
    tls_cert: Path | None = _setting(
        None,
        _FILE,
        "Certificate chain, PEM; with tls_key. Without both, a private CA in the state folder signs one.",
        applies="restart; its content: when the file changes",
    )
    tls_key: Path | None = _setting(
        None,
        _FILE,
        "Private key of tls_cert, PEM.",
        applies="restart; its content: when the file changes",
    )
    tls_names: tuple[str, ...] = _setting(
        (), _NAMES, "More names and addresses for the certificate that the private CA signs."
    )
    tls_profile: Literal["intermediate", "modern"] = _setting(
        "intermediate",
        _choice("intermediate", "modern"),
        "Mozilla's TLS profile: intermediate is TLS 1.2 and 1.3, modern is 1.3 only.",
    )
    database: DatabaseUrl = _setting(
        DatabaseUrl(""),
        _DATABASE,
        "Where the store is: postgresql://user:password@host/name, or empty for SQLite in the state folder.",
    )
    management_url: str = _setting(
        "", _WEB_URL, "How clients reach the management listener, where that is not as they addressed it."
    )
    scoring_url: str = _setting(
        "", _WEB_URL, "How clients reach the scoring listener: what scoring URIs begin with; empty: as it listens."
    )
    assets_max_bytes: int = _setting(
        100 * 1024 * _MIB, _integer(_MIB, 1 << 50), "Most bytes of uploaded and registered content, together."
    )
    upload_max_bytes: int = _setting(
        10 * 1024 * _MIB, _integer(1, 1 << 50), "Largest file that may be uploaded, in bytes."
    )
    upload_link_lifetime_s: float = _setting(
        3600.0, _seconds(60, 86_400), "How long a link for uploads stays good, in seconds."
    )
    model_folders: tuple[str, ...] = _setting(
        (),
        _FOLDERS,
        "Folders of this machine from which models may be registered over the network as file:///path.",
    )
    environment_build_timeout_s: float = _setting(
        1800.0, _seconds(10, 86_400), "How long building a script's environment may take, in seconds."
    )
    environment_max_bytes: int = _setting(
        20 * 1024 * _MIB, _integer(_MIB, 1 << 50), "Most bytes of one built environment on the disk."
    )
    script_memory_bytes: int = _setting(
        0, _integer(0, 1 << 50), "Most memory that a worker process of a script may hold, in bytes. 0: no bound."
    )
    script_cpu_seconds: int = _setting(
        0,
        _integer(0, 1 << 31),
        "Most CPU time that a worker process may use in its life, in seconds; it is replaced then. 0: no bound.",
    )
    script_files_max: int = _setting(1024, _integer(16, 1_000_000), "Most open files of a worker process.")
    script_processes_max: int = _setting(
        0,
        _integer(0, 1_000_000),
        "Most processes and threads beside those that the gateway's user has when a worker starts; the kernel counts "
        "them by user, and root's not at all. 0: no bound.",
    )
    script_sandbox: Literal["none", "bwrap"] = _setting(
        "none",
        _choice("none", "bwrap"),
        "How worker processes are shut in: bwrap gives them no network and a file system that they cannot change, "
        "with nothing of the machine in it but its programs and what they need.",
    )
    script_folders: tuple[str, ...] = _setting(
        (), _FOLDERS, "Folders of this machine that scripts in the sandbox may read, too."
    )
    data_collection_max_bytes: int = _setting(
        10 * 1024 * _MIB,
        _integer(_MIB, 1 << 50),
        "Most bytes of collected data on the disk; above, the files that were written to longest ago go.",
    )
    data_collection_queue_bytes: int = _setting(
        32 * _MIB,
        _integer(_MIB, 1 << 40),
        "Most bytes of collected data that wait for the disk in one process; more are dropped and counted.",
    )
    people_issuer: str = _setting("", _TEXT, "Issuer of tokens for people who manage the gateway (OpenID Connect).")
    people_audience: str = _setting("", _TEXT, "Audience of these tokens; with people_issuer.")
    people_jwks_uri: str = _setting("", _TEXT, "Where these tokens' keys are; empty: the issuer's discovery says.")
    people_claim: str = _setting("roles", _TEXT, "The claim of these tokens that holds reader, operator or admin.")
    scorers: int = _setting(0, _integer(0, 1024), "Scoring processes; 0 takes one for each core there is to use.")
    domain: str = _setting(
        "", _DOMAIN, "Suffix for routing by host name: {endpoint}.<domain>/score; empty: by path only."
    )
    max_body_bytes: int = _setting(
        10 * _MIB, _integer(1, 4096 * _MIB), "Longest request body, in bytes, where a deployment sets no other; 413."
    )
    max_header_bytes: int = _setting(16 * 1024, _integer(1024, _MIB), "Longest request head, in bytes; 431.")
    max_headers: int = _setting(100, _integer(8, 10_000), "Most request headers; 431.")
    max_uri_bytes: int = _setting(8 * 1024, _integer(256, _MIB), "Longest request target, in bytes; 414.")
    header_timeout_s: float = _setting(10.0, _seconds(0.1, 3600), "Time to send a request's head, in seconds; 408.")
    body_min_bytes_per_s: int = _setting(
        1024, _integer(0, _MIB), "Slowest upload after its first 5 seconds, in bytes a second; 408. 0: no bound."
    )
    idle_timeout_s: float = _setting(
        75.0, _seconds(1, 86_400), "How long a connection may stay open without a request, in seconds."
    )
    max_connections: int = _setting(
        10_000, _integer(1, 1_000_000), "Most open scoring connections, over all scorers; more are closed at once."
    )
    drain_grace_s: float = _setting(
        5.0, _seconds(0, 3600), "After SIGTERM: how long to serve on while not ready any more, in seconds."
    )
    drain_timeout_s: float = _setting(
        30.0, _seconds(0, 86_400), "After drain_grace_s: how long running requests may take to end, in seconds."
    )
    load_timeout_s: float = _setting(
        600.0,
        _seconds(1, 86_400),
        "How long one model may take to load, in seconds; then the change has failed, and the scorer is replaced.",
    )
    copy_models: bool = _setting(
        True,
        FLAG,
        "Whether models are copied into the state folder, so that one that is overwritten harms nothing that serves.",
    )
    gzip: bool = _setting(False, FLAG, "Whether gzip request bodies are taken; otherwise 415.")
    triton_metrics: bool = _setting(False, FLAG, "Whether Triton's nv_inference_* metrics are told as well.")
    timeout_status: Literal[408, 504] = _setting(
        408, Parser("408|504", "one of 408, 504", _status), "Status of a request past its deadline."
    )
    log_level: Literal["debug", "info", "warning", "error"] = _setting(
        "info", _choice("debug", "info", "warning", "error"), "Least level that is logged."
    )
    log_format: Literal["text", "json"] = _setting("text", _choice("text", "json"), "Form of log lines on stderr.")
    mirror_in_flight_max: int = _setting(
        64, _integer(0, 100_000), "Most mirrored copies in flight in one scorer; more are dropped."
    )
    allow_cpu_fallback: bool = _setting(
        False, FLAG, "Whether GPU deployments run on the CPU where the device is missing, if their YAML is silent."
    )
    oidc_issuer: str = _setting("", _TEXT, "Issuer of tokens for aad_token endpoints without gateway.oidc.")
    oidc_audience: str = _setting("", _TEXT, "Audience of these tokens; with oidc_issuer.")
    oidc_jwks_uri: str = _setting("", _TEXT, "Where these tokens' keys are; empty: the issuer's discovery says.")
    endpoints_max: int = _setting(100, _integer(1, 100_000), "Most endpoints.")
    deployments_max: int = _setting(500, _integer(1, 100_000), "Most deployments.")
    deployments_per_endpoint_max: int = _setting(20, _integer(1, 10_000), "Most deployments of one endpoint.")
    instances_per_deployment_max: int = _setting(
        50, _integer(1, 10_000), "Most instances of one deployment; sessions, where an instance has several."
    )

    sources: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)


def settings_about() -> dict[str, About]:
    """Every setting's documentation, by name, in order."""
    return {one.name: one.metadata["about"] for one in dataclasses.fields(Settings) if "about" in one.metadata}


def load_settings(
    argv_values: Mapping[str, object], environ: Mapping[str, str], config: Path | None = None
) -> Settings:
    """Join all sources and check the whole. `argv_values` by setting name, None for an argument that is not given;
    `config` wins over GATEWAY_CONFIG. Errors: SettingsError."""
    gathering = _Gathering(settings_about())
    file = config or (Path(environ[CONFIG_VARIABLE]) if environ.get(CONFIG_VARIABLE) else None)
    if file is not None:
        gathering.file(file)
    gathering.environment(environ)
    for name, value in argv_values.items():
        if value is not None:
            gathering.take(name, str(value), f"argument --{name.replace('_', '-')}")
    return gathering.settings()


def shown(value: object) -> str:
    """A value as a source would give it. No setting is a secret itself: keys are files, named here by their path."""
    if isinstance(value, tuple):
        return ",".join(str(one) for one in value)
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


class _Gathering:
    """Values so far, with their sources; a later source replaces an earlier one."""

    def __init__(self, about: dict[str, About]) -> None:
        self._about = about
        self._values: dict[str, Any] = {}
        self._sources: dict[str, str] = dict.fromkeys(about, "default")
        self._problems: list[str] = []

    def take(self, name: str, text: str, source: str, base: Path | None = None) -> None:
        """`base` is what a relative path is relative to; None: the working folder."""
        parser = self._about[name].parser
        try:
            value = parser.read(text)
        except (ValueError, KeyError):
            found = "what is not shown, as it may hold a password" if parser is _DATABASE else repr(text)
            self._problems.append(f"{source}: found {found}; accepted: {parser.accepts}")
            return
        if parser is _FOLDERS:
            value = tuple(str((base or Path.cwd()) / one) for one in value)
        self._values[name] = base / value if base is not None and parser in _PATHS else value
        self._sources[name] = source

    def environment(self, environ: Mapping[str, str]) -> None:
        variables = {f"{PREFIX}{name.upper()}": name for name in self._about}
        for variable, text in environ.items():
            if not variable.startswith(PREFIX) or variable in _NOT_SETTINGS or _SERVICE_LINKS.fullmatch(variable):
                continue
            if variable not in variables:
                # Without the prefix, which would make all of them alike.
                match = nearest(variable.removeprefix(PREFIX), self._about)
                hint = f"; did you mean {PREFIX}{match.upper()}?" if match else ""
                self._problems.append(f"environment {variable}: there is no such setting{hint}")
            elif text:
                self.take(variables[variable], text, f"environment {variable}")

    def file(self, file: Path) -> None:
        from gateway.yaml_text import Entries, read_documents  # here: most processes have no such file

        try:
            documents, mistakes = read_documents(file.read_bytes())
        except OSError as error:
            self._problems.append(f"cannot read the settings file {file}: {error.strerror}")
            return
        self._problems += [f"file {file}:{mistake}" for mistake in mistakes]
        if len(documents) > 1 or not all(isinstance(one, Entries) for one in documents):
            self._problems.append(f"file {file}: accepted: one mapping of setting names to values")
            return
        for document in documents:
            assert isinstance(document, Entries)
            for name, node in document.entries.items():
                self._entry(name, node, f"file {file}:{document.lines[name]}", file.absolute().parent)

    def _entry(self, name: str, node: Any, source: str, base: Path) -> None:
        from gateway.yaml_text import Items, Scalar

        if name not in self._about:
            self._problems.append(f"{source}: {name}: there is no such setting{did_you_mean(name, self._about)}")
            return
        parser = self._about[name].parser
        items = node.items if isinstance(node, Items) and parser in _LISTS else (node,)
        texts = [item.text for item in items if isinstance(item, Scalar)]
        if len(texts) < len(items):
            self._problems.append(f"{source}: {name}: found a list or a mapping; accepted: {parser.accepts}")
        elif not (isinstance(node, Scalar) and node.is_null):
            self.take(name, ",".join(texts), f"{source}: {name}", base)

    def settings(self) -> Settings:
        pairs = (("tls_cert", "tls_key"), ("oidc_issuer", "oidc_audience"), ("people_issuer", "people_audience"))
        for first, second in pairs:
            if bool(self._values.get(first)) != bool(self._values.get(second)):
                given, other = (first, second) if self._values.get(first) else (second, first)
                self._problems.append(f"{self._sources[given]}: {given} needs {other}; give both or neither")
        if self._problems:
            raise SettingsError(tuple(self._problems))
        return Settings(**self._values, sources=self._sources)
