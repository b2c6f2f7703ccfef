"""Settings: four sources, one value, and what is said of each mistake."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from gateway.settings import Listen, Settings, SettingsError, load_settings, settings_about, shown


def problems(
    argv: dict[str, object] | None = None, environ: dict[str, str] | None = None, config: Path | None = None
) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load_settings(argv or {}, environ or {}, config)
    return list(caught.value.problems)


def test_nothing_given_is_the_default() -> None:
    settings = load_settings({"apply": None}, {"PATH": "/bin"})
    assert settings == Settings()
    assert set(settings.sources.values()) == {"default"}
    assert (settings.scoring.url, settings.management.url) == ("https://127.0.0.1:8443", "https://127.0.0.1:8444")
    assert str(settings.telemetry) == "http://127.0.0.1:9464"
    assert (settings.state, settings.max_body_bytes) == (Path(".gateway"), 10 * 1024 * 1024)


def test_every_field_is_documented_and_its_default_is_what_its_parser_reads() -> None:
    about = settings_about()
    assert [*about, "sources"] == [one.name for one in dataclasses.fields(Settings)]
    for name, one in about.items():
        default = getattr(Settings(), name)
        assert one.what.endswith(".")
        if shown(default):
            assert one.parser.read(shown(default)) == default


def test_later_sources_win_and_are_remembered(tmp_path: Path) -> None:
    config = tmp_path / "gateway.yml"
    config.write_text("scorers: 1\nmax_headers: 11\ngzip: yes\nlog_level: Debug\n")
    environ = {"GATEWAY_CONFIG": str(config), "GATEWAY_SCORERS": "2", "GATEWAY_MAX_HEADERS": "12"}
    settings = load_settings({"scorers": 3, "gzip": None}, environ)
    assert (settings.scorers, settings.max_headers, settings.gzip, settings.log_level) == (3, 12, True, "debug")
    assert settings.sources["scorers"] == "argument --scorers"
    assert settings.sources["max_headers"] == "environment GATEWAY_MAX_HEADERS"
    assert settings.sources["gzip"] == f"file {config}:3: gzip"
    assert settings.sources["domain"] == "default"


def test_the_config_argument_wins_over_its_variable(tmp_path: Path) -> None:
    config = tmp_path / "gateway.yml"
    config.write_text("scorers: 1\n")
    assert load_settings({}, {"GATEWAY_CONFIG": "/nowhere"}, config).scorers == 1


def test_paths_in_a_file_are_relative_to_it(tmp_path: Path) -> None:
    config = tmp_path / "gateway.yml"
    config.write_text("apply: models\nstate: /var/lib/gateway\ntls_cert: c.pem\ntls_key: k.pem\ndomain:\n")
    settings = load_settings({"tls_key": "here.pem"}, {}, config)
    assert settings.apply == tmp_path / "models"
    assert settings.state == Path("/var/lib/gateway")
    assert (settings.tls_cert, settings.tls_key) == (tmp_path / "c.pem", Path("here.pem"))


def test_names_come_as_a_list_or_with_commas(tmp_path: Path) -> None:
    config = tmp_path / "gateway.yml"
    config.write_text("tls_names: [a.example, 10.0.0.1]\n")
    assert load_settings({}, {}, config).tls_names == ("a.example", "10.0.0.1")
    assert load_settings({}, {"GATEWAY_TLS_NAMES": "a, b,"}, config).tls_names == ("a", "b")


@pytest.mark.parametrize(
    ("text", "listen"),
    [
        ("https://127.0.0.1:8443", Listen("https", "127.0.0.1", 8443)),
        ("HTTP://localhost:0/", Listen("http", "localhost", 0)),
        ("https://[::1]:1", Listen("https", "::1", 1)),
        ("http://0.0.0.0:65535", Listen("http", "0.0.0.0", 65535)),
    ],
)
def test_a_listener_is_a_url(text: str, listen: Listen) -> None:
    assert load_settings({"scoring": text}, {}).scoring == listen
    assert load_settings({"scoring": listen.url}, {}).scoring == listen


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "8443",
            "localhost:8443",
            "//h:1",
            "ftp://h:1",
            "https://h",
            "https://:1",
            "https://h:65536",
            "https://h:x",
        ),
        *("https://h:1/path", "https://h:1?q", "https://h:1#f", "https://u:p@h:1", "https://*:1", "https://a b:1"),
        *("https://[::1:1", "https://ü:1", "unix:/run/x.sock"),
    ],
)
def test_anything_else_is_no_listener(text: str) -> None:
    assert problems({"scoring": text}) == [
        f"argument --scoring: found {text!r}; accepted: a URL such as https://127.0.0.1:8443 or http://[::1]:0 "
        "(scheme http or https, host, port)"
    ]


@pytest.mark.parametrize(
    ("name", "text", "accepted"),
    [
        ("scorers", "-1", "an integer from 0 to 1024"),
        ("scorers", "two", "an integer from 0 to 1024"),
        ("header_timeout_s", "nan", "seconds from 0.1 to 3600"),
        ("header_timeout_s", "1e9", "seconds from 0.1 to 3600"),
        ("gzip", "maybe", "true or false"),
        ("tls_profile", "old", "one of intermediate, modern"),
        ("timeout_status", "500", "one of 408, 504"),
        ("tls_names", "a b", "host names and IP addresses, with commas between"),
        ("domain", "a_b", "a domain name such as models.example.org"),
        ("state", "", "a folder"),
    ],
)
def test_a_value_out_of_range_names_what_would_be_accepted(name: str, text: str, accepted: str) -> None:
    flag = name.replace("_", "-")
    assert problems({name: text}) == [f"argument --{flag}: found {text!r}; accepted: {accepted}"]


def test_a_domain_loses_its_dots_at_the_ends() -> None:
    assert load_settings({"domain": ".Models.Example."}, {}).domain == "models.example"


def test_the_status_of_a_timeout_may_be_504() -> None:
    assert load_settings({}, {"GATEWAY_TIMEOUT_STATUS": "504"}).timeout_status == 504


def test_unknown_variables_are_refused_but_not_those_that_are_for_something_else() -> None:
    links = {
        "GATEWAY_SERVICE_HOST": "10.0.0.1",
        "GATEWAY_SERVICE_PORT": "8443",
        "GATEWAY_SERVICE_PORT_HTTPS": "8443",
        "GATEWAY_PORT": "tcp://10.0.0.1:8443",
        "GATEWAY_PORT_8443_TCP": "tcp://10.0.0.1:8443",
        "GATEWAY_PORT_8443_TCP_ADDR": "10.0.0.1",
        "GATEWAY_DOMAIN": "",
        # What `gateway bench` sends is no setting either.
        "GATEWAY_KEY": "a-key",
    }
    assert load_settings({}, links) == Settings()
    assert problems({}, {"GATEWAY_SCORER": "1", "GATEWAY_ZZZZZZ": "1"}) == [
        "environment GATEWAY_SCORER: there is no such setting; did you mean GATEWAY_SCORERS?",
        "environment GATEWAY_ZZZZZZ: there is no such setting",
    ]


def test_all_problems_of_a_file_are_told_with_their_lines(tmp_path: Path) -> None:
    config = tmp_path / "gateway.yml"
    config.write_text("scorer: 1\nscorers: x\nscorers: 2\nscoring: [a]\ntls_names: [{}]\n")
    assert problems(config=config) == [
        f"file {config}:3: scorers: the key is repeated; line 2 has it too",
        f"file {config}:1: scorer: there is no such setting; did you mean scorers?",
        f"file {config}:2: scorers: found 'x'; accepted: an integer from 0 to 1024",
        f"file {config}:4: scoring: found a list or a mapping; accepted: a URL such as https://127.0.0.1:8443 or "
        "http://[::1]:0 (scheme http or https, host, port)",
        f"file {config}:5: tls_names: found a list or a mapping; accepted: host names and IP addresses, "
        "with commas between",
    ]


def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path) -> None:
    config = tmp_path / "gateway.yml"
    for text in ("- a\n", "a\n", "scorers: 1\n---\nscorers: 2\n"):
        config.write_text(text)
        assert problems(config=config) == [f"file {config}: accepted: one mapping of setting names to values"]
    config.write_text("# nothing yet\n")
    assert load_settings({}, {}, config) == Settings()
    config.unlink()
    assert problems(config=config) == [f"cannot read the settings file {config}: No such file or directory"]


def test_halves_of_a_pair_are_refused() -> None:
    assert problems({"tls_cert": "c.pem"}) == ["argument --tls-cert: tls_cert needs tls_key; give both or neither"]
    assert problems({}, {"GATEWAY_OIDC_AUDIENCE": "a"}) == [
        "environment GATEWAY_OIDC_AUDIENCE: oidc_audience needs oidc_issuer; give both or neither"
    ]


def test_values_are_shown_as_a_source_would_give_them() -> None:
    assert [shown(one) for one in (True, None, 5.0, 0.5, ("a", "b"), Listen("http", "::1", 0))] == [
        *("true", "", "5", "0.5", "a,b", "http://[::1]:0")
    ]


@pytest.mark.parametrize(
    ("url", "shown_as"),
    [
        ("postgresql://gateway:canary@db.example/gateway", "postgresql://gateway:***@db.example/gateway"),
        ("postgresql+psycopg://g:can@ary@db/x?sslmode=require", "postgresql+psycopg://g:***@db/x?sslmode=require"),
        ("postgresql://g:can/ary@db/x", "postgresql://g:***@db/x"),
        ("postgresql://:canary@db/x", "postgresql://:***@db/x"),
        ("postgresql://g:@db/x", "postgresql://g:***@db/x"),
        ("postgresql://g@db/x?password=canary&a=b", "postgresql://g@db/x?password=***&a=b"),
        ("postgresql://g@db:5432/x", "postgresql://g@db:5432/x"),
        ("sqlite:////var/lib/gateway.db", "sqlite:////var/lib/gateway.db"),
    ],
)
def test_a_database_is_shown_without_its_password(url: str, shown_as: str) -> None:
    settings = load_settings({"database": url}, {})
    assert settings.database.url == url
    assert shown(settings.database) == str(settings.database) == shown_as
    assert "canary" not in repr(settings) + repr(settings.database)


@pytest.mark.parametrize("url", ["mysql://g:canary@db/x", "g:canary@db/x", "://g:canary@db"])
def test_a_database_that_cannot_be_used_is_refused_without_its_password(url: str) -> None:
    (problem,) = problems(environ={"GATEWAY_DATABASE": url})
    assert "accepted: postgresql://user:password@host/name or sqlite:///path" in problem
    assert "canary" not in problem


def test_no_database_is_one_in_the_state_folder() -> None:
    assert not load_settings({}, {"GATEWAY_DATABASE": ""}).database
    assert not Settings().database


def test_folders_come_as_a_list_or_with_commas_and_a_files_are_relative_to_it(tmp_path: Path) -> None:
    config = tmp_path / "gateway.yml"
    config.write_text("model_folders: [models, /srv/models]\n")
    assert load_settings({}, {}, config).model_folders == (str(tmp_path / "models"), "/srv/models")
    config.write_text("model_folders: models, /srv/models\n")
    assert load_settings({}, {}, config).model_folders == (str(tmp_path / "models"), "/srv/models")
    given = load_settings({"model_folders": "models,/srv/models,"}, {}).model_folders
    assert given == (str(Path.cwd() / "models"), "/srv/models")
    assert problems(environ={"GATEWAY_MODEL_FOLDERS": "a\0b"})


def test_urls_for_clients_lose_their_last_slash_and_are_nothing_else() -> None:
    assert load_settings({"scoring_url": "https://models.example/"}, {}).scoring_url == "https://models.example"
    for text in ("models.example", "ftp://models.example", "https://", "https://a/?b=c", "https://a/#b"):
        assert "accepted: a URL such as https://models.example.org" in problems({"management_url": text})[0]


def test_people_need_an_issuer_and_an_audience() -> None:
    assert problems({"people_issuer": "https://issuer.example"}) == [
        "argument --people-issuer: people_issuer needs people_audience; give both or neither"
    ]
    given = load_settings({"people_issuer": "https://issuer.example", "people_audience": "gateway"}, {})
    assert given.people_claim == "roles"
