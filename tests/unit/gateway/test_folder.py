"""A folder of YAML as a person writes it: what is understood, and what is said when it is not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.controlplane import folder as folder_module
from gateway.controlplane import rules
from gateway.controlplane.folder import FolderError, FolderOptions, read_documents_of, read_folder
from gateway.controlplane.store.records import Kind
from gateway.controlplane.translate import provider_of
from gateway.controlplane.yaml_types import EnvironmentYaml
from gateway.resources import AssetModel, AuthMode, Deployment, Desired, Endpoint, LocalModel, Oidc, SecretSource
from gateway.settings import load_settings

ENDPOINT = "name: digits\n"
DEPLOYMENT = "name: blue\nendpoint_name: digits\nmodel: m.onnx\ninstance_type: cpu\n"

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes files into a folder that has a model; keyword names become file names."""

    def write(**files: str) -> Path:
        (tmp_path / "m.onnx").write_bytes(b"model")
        for name, text in files.items():
            path = tmp_path / (name.replace("__", "/") + ".yml")
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return tmp_path

    return write


def problems(folder: Path, options: FolderOptions | None = None) -> list[str]:
    with pytest.raises(FolderError) as caught:
        read_folder(folder, options)
    return list(caught.value.problems)


def deployment(desired: Desired) -> Deployment:
    return desired.deployments[("digits", "blue")]


def endpoint(desired: Desired) -> Endpoint:
    return desired.endpoints["digits"]


# ---- what is understood ------------------------------------------------------------------------------------------


def test_the_smallest_files_get_defaults_that_need_no_thought(write: Write) -> None:
    folder = write(a=ENDPOINT, b=DEPLOYMENT)
    desired = read_folder(folder)
    assert endpoint(desired) == Endpoint(name="digits", source="a.yml")
    assert deployment(desired) == Deployment(
        name="blue",
        endpoint_name="digits",
        model=LocalModel(path=folder / "m.onnx"),
        instance_type="cpu",
        source="b.yml",
    )
    assert desired.notes == ()


def test_concurrency_and_queue_wait_are_none_unless_the_file_gives_them(write: Write) -> None:
    bare = deployment(read_folder(write(a=ENDPOINT, b=DEPLOYMENT)))
    assert (bare.max_concurrent_requests_per_instance, bare.max_queue_wait_ms, bare.max_pending) == (None, None, None)
    settings = "request_settings: {max_concurrent_requests_per_instance: 3, max_queue_wait_ms: 250}\n"
    given = deployment(read_folder(write(b=DEPLOYMENT + settings + "instance_count: 2\n")))
    assert (given.max_queue_wait_ms, given.max_pending) == (250, 12)


def test_an_azure_endpoint_file_is_read_key_by_key(write: Write) -> None:
    text = """
$schema: https://azuremlschemas.azureedge.net/latest/managedOnlineEndpoint.schema.json
name: Digits
description: Handwritten digits
auth_mode: AMLToken
tags: {team: vision, year: 2024, draft: true}
properties: {a: 1.10}
traffic: {Blue: "90", green: 10}
mirror_traffic: {red: 20}
public_network_access: Enabled
location: westeurope
id: x
kind: Managed
scoring_uri: https://x/score
openapi_uri: https://x/swagger.json
provisioning_state: Succeeded
gateway: {token_lifetime_s: 60, slo_ms: 12.5}
"""
    others = "\n---\n".join(DEPLOYMENT.replace("blue", name) for name in ("blue", "green", "red"))
    desired = read_folder(write(a=text, b=others))
    found = endpoint(desired)
    assert found.name == "Digits"
    assert found.auth_mode is AuthMode.AML_TOKEN
    assert found.tags == {"team": "vision", "year": "2024", "draft": "true"}
    assert found.properties == {"a": "1.10"}
    assert (found.traffic, found.mirror_traffic) == ({"blue": 90, "green": 10}, {"red": 20})
    assert found.token_lifetime_s == 60
    assert found.slo_ms == 12.5
    assert desired.notes == ()


def test_our_block_of_a_deployment_is_read_in_its_units(write: Write) -> None:
    text = """
gateway:
  batching: {enabled: 'True', max_rows: 8, queue_delay_ms: 0.5, queue_items_max: 9, axes: {image: 1}}
  runtime: {provider: TensorRT, allow_cpu_fallback: yes, device_ids: [1, 0], gpu_memory_mb: 2, threads: 3,
            dispatch: inline}
  limits: {max_body_bytes: 77}
"""
    found = deployment(read_folder(write(a=ENDPOINT, b=DEPLOYMENT + text)))
    limits = found.batching.limits
    assert (limits.batch_rows_max, limits.queue_delay_ns, limits.queue_items_max) == (8, 500_000, 9)
    assert found.batching.axes == {"image": 1}
    assert (found.provider, found.allow_cpu_fallback, found.device_ids) == ("tensorrt", True, (1, 0))
    assert (found.gpu_memory_bytes, found.threads, found.dispatch) == (2 * 1024 * 1024, 3, "inline")
    assert found.max_body_bytes == 77


def test_our_block_of_an_endpoint_brings_keys_and_token_rules(write: Write) -> None:
    text = """
auth_mode: AADToken
gateway:
  oidc: {issuer: "https://id.example", audience: api, algorithms: [es256], required_roles: [score]}
"""
    folder = write(a=ENDPOINT + text, b=DEPLOYMENT)
    assert endpoint(read_folder(folder)).oidc == Oidc(
        issuer="https://id.example", audience="api", algorithms=("ES256",), required_roles=("score",)
    )
    (folder / "key").write_text("secret")
    keys = "gateway: {keys: {primary: {file: key}, secondary: {env: SECOND_KEY}}}\n"
    found = endpoint(read_folder(write(a=ENDPOINT + keys))).keys
    assert found.primary == SecretSource(file=folder / "key")
    assert found.secondary == SecretSource(env="SECOND_KEY")


def test_windows_files_several_documents_and_folders_one_level_down_are_read(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "m.onnx").touch()
    both = f"\ufeff---\n# nothing\n---\n{ENDPOINT}---\n{DEPLOYMENT}".replace("\n", "\r\n")
    (tmp_path / "models" / "ALL.YAML").write_bytes(both.encode())
    desired = read_folder(tmp_path)
    assert endpoint(desired).source == "models/ALL.YAML (document 1)"
    assert deployment(desired).model == LocalModel(path=tmp_path / "models" / "m.onnx")


def test_hidden_files_deeper_folders_and_conda_files_are_left_out(write: Write) -> None:
    folder = write(a=ENDPOINT, b=DEPLOYMENT, conda="channels: [x]\ndependencies: [y]\n")
    for name in (".hidden.yml", "..data/x.yml", "one/two/x.yml"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("nonsense: [")
    (folder / "folder.yml").mkdir()
    assert read_folder(folder).notes == (
        "conda.yml: channels, dependencies: this looks like a conda file, which no environment names; it is not read",
    )


@pytest.mark.parametrize(
    ("instance_type", "provider"),
    [
        ("Standard_DS3_v2", "cpu"),
        ("Standard_NC6s_v3", "cuda"),
        ("STANDARD_ND96asr_v4", "cuda"),
        ("Standard_NV12", "cuda"),
        ("cpu", "cpu"),
        ("GPU", "cuda"),
        ("local-cuda", "cuda"),
        ("tensorrt", "tensorrt"),
        ("anything", "cpu"),
    ],
)
def test_an_instance_type_stands_for_a_provider(instance_type: str, provider: str) -> None:
    assert provider_of(instance_type) == provider


@pytest.mark.parametrize(
    ("more", "provider"),
    [
        ("resources: {limits: {nvidia.com/gpu: 1}}", "cuda"),
        ("resources: {requests: {gpu: '2', cpu: 0.5}}", "cuda"),
        ("resources: {requests: {gpu: 0}}", "cpu"),
        ("gateway: {runtime: {provider: cpu}}\nresources: {requests: {gpu: 1}}", "cpu"),
    ],
)
def test_a_kubernetes_deployment_asks_for_gpus_by_amount(write: Write, more: str, provider: str) -> None:
    text = DEPLOYMENT.replace("instance_type: cpu\n", "type: kubernetes\n") + more
    found = deployment(read_folder(write(a=ENDPOINT + "compute: azureml:k8s\n", b=text)))
    assert (found.provider, found.kind, found.instance_type) == (provider, "kubernetes", "")


def test_the_schema_tells_kubernetes_too(write: Write) -> None:
    schema = "$schema: https://x/latest/kubernetesOnline{}.schema.json\n"
    folder = write(a=schema.format("Endpoint") + ENDPOINT, b=schema.format("Deployment") + DEPLOYMENT)
    assert (endpoint(read_folder(folder)).kind, deployment(read_folder(folder)).kind) == ("kubernetes", "kubernetes")


def test_settings_fill_in_where_files_are_silent(write: Write) -> None:
    settings = load_settings(
        {"oidc_issuer": "https://id", "oidc_audience": "api", "allow_cpu_fallback": True, "deployments_max": 7}, {}
    )
    options = FolderOptions.of(settings)
    assert options.limits == rules.Limits(deployments=7)
    folder = write(a=ENDPOINT + "auth_mode: aad_token\n", b=DEPLOYMENT)
    desired = read_folder(folder, options)
    assert endpoint(desired).oidc == Oidc(issuer="https://id", audience="api")
    assert deployment(desired).allow_cpu_fallback is True
    pinned = DEPLOYMENT + "gateway: {runtime: {allow_cpu_fallback: false}}\n"
    assert deployment(read_folder(write(b=pinned), options)).allow_cpu_fallback is False
    assert FolderOptions.of(load_settings({}, {})).oidc is None


def test_a_merge_key_brings_shared_settings(write: Write) -> None:
    text = f"{DEPLOYMENT}request_settings: &shared {{request_timeout_ms: 7}}\n---\n"
    own = DEPLOYMENT.replace("blue", "green")
    merged = "tags: &t {a: 1, b: 2}\nproperties:\n  <<: [*t]\n  b: 3\n"
    desired = read_folder(write(a=ENDPOINT, b=text + own + merged))
    assert desired.deployments[("digits", "green")].properties == {"a": "1", "b": "3"}


# ---- models ------------------------------------------------------------------------------------------------------


def test_a_model_is_a_file_or_a_folder_with_exactly_one(write: Write) -> None:
    folder = write(a=ENDPOINT)
    (folder / "one").mkdir()
    (folder / "one" / "net.ONNX").touch()
    (folder / "one" / "labels.txt").touch()
    for text in ("one", "{path: ./one, name: net, version: 1, type: customModel}", f"'{folder}/one/net.ONNX'"):
        write(b=DEPLOYMENT.replace("m.onnx", text))
        model = deployment(read_folder(folder)).model
        assert isinstance(model, LocalModel)
        assert model.path.name == "net.ONNX"


@pytest.mark.parametrize(
    ("model", "path", "said"),
    [
        ("nowhere.onnx", "model", "there is no file "),
        ("{path: nowhere}", "model.path", "there is no file "),
        ("many", "model", "many holds 2 .onnx files (a.onnx, b.onnx); accepted: a .onnx file or a folder"),
        ("none", "model", "none holds no .onnx file; accepted"),
        ("b.yml", "model", "b.yml is no .onnx file; accepted"),
        ("azureml:digits", "model", "found 'azureml:digits'; accepted: azureml:NAME:VERSION, azureml:NAME@latest"),
        ("azureml://registries/r/models/m/versions/1", "model", "registries are not served here"),
        ("https://x.example/m.onnx", "model", "and models are not fetched; give a local path"),
        ("digits:1", "model", "there is no file 'digits:1'; a registered model is azureml:digits:1"),
        (
            "{path: m.onnx, type: MLFlowModel}",
            "model.path",
            "this is no folder: 'm.onnx'; accepted: the folder that mlflow saved",
        ),
        ("{path: m.onnx, type: triton_model}", "model.path", "m.onnx is no folder; accepted: the folder of a Triton"),
        ("{path: nowhere, type: triton_model}", "model.path", "nowhere is not there; accepted: the folder of a"),
        ("{path: none, type: triton_model}", "model.path", "it holds no model; accepted: a Triton repository"),
        ("''", "model", "found ''; accepted: a .onnx file"),
        ('"a\\0b"', "model", "accepted: a .onnx file"),
        ("x" * 300, "model", "File name too long"),
        ("{name: m}", "model.path", "missing; accepted: text"),
        ("[m.onnx]", "model", "found a list; accepted: text or a mapping"),
        ("", "model", "missing; accepted: a .onnx file"),
    ],
)
def test_a_model_that_cannot_be_served_is_explained(write: Write, model: str, path: str, said: str) -> None:
    folder = write(a=ENDPOINT, b=DEPLOYMENT.replace("m.onnx", model))
    for name in ("many/a.onnx", "many/b.onnx", "none/a.txt"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    (problem,) = problems(folder)
    assert problem.startswith(f"b.yml:3: {path}: ")
    assert said in problem


def test_a_model_below_a_file_is_missing(write: Write) -> None:
    (problem,) = problems(write(a=ENDPOINT, b=DEPLOYMENT.replace("m.onnx", "m.onnx/deeper")))
    assert "there is no file" in problem


# ---- mistakes ----------------------------------------------------------------------------------------------------


def test_all_problems_of_a_folder_are_told_at_once(write: Write) -> None:
    folder = write(
        a="name: digits\nauth_mod: key\ntraffic: {blue: 90}\n",
        b=DEPLOYMENT.replace("m.onnx", "lost.onnx") + "request_settings:\n  request_timeout: 5\ninstance_count: x\n",
        c="name: red\nendpoint_name: digits\nmodel: m.onnx\ninstance_type: cpu\ncode_configuration: {code: .}\n",
        d="a: [1,\n",
        e="- just\n- a list\n",
    )
    found = problems(folder)
    assert [one.rsplit(";", 1)[0][:60] for one in found] == [
        "a.yml:2: auth_mod: unknown key",
        "b.yml:6: request_settings.request_timeout: unknown key",
        "b.yml:7: instance_count: found 'x'",
        f"b.yml:3: model: there is no file {folder}/lost.onnx"[:60],
        "c.yml:5: code_configuration.scoring_script: missing",
        "d.yml:2: not YAML: did not find expected node content",
        "e.yml:1: found a list",
    ]
    assert found[0].endswith("; did you mean auth_mode?")
    assert found[1].endswith("; did you mean request_timeout_ms?")
    assert found[2].endswith("; accepted: an integer from 1 to 10000")


def test_yaml_among_code_and_models_is_theirs_and_our_documents_are_ours(write: Write) -> None:
    script = "code_configuration: {code: src, scoring_script: s.py}\nenvironment: {image: x, conda_file: conda.yml}\n"
    folder = write(
        a=ENDPOINT,
        b=DEPLOYMENT.replace("m.onnx", "weights") + script,
        conda="dependencies: [python]\n",
        src__broken="x: [\n",
        src__endpoint="name: other\n",
        weights__settings="depth: 3\n",
    )
    (folder / "src" / "s.py").write_text("def init(): ...\ndef run(raw): ...\n")

    found = read_folder(folder)

    assert set(found.endpoints) == {"digits", "other"}
    assert found.notes == ()


@pytest.mark.parametrize("slo_ms", ["0", "-1", "soon", "300001", "nan", "0.0001"])
def test_an_slo_is_a_positive_number(write: Write, slo_ms: str) -> None:
    (found,) = problems(write(a=f"name: digits\ngateway: {{slo_ms: {slo_ms}}}"))
    assert found == f"a.yml:2: gateway.slo_ms: found '{slo_ms}'; accepted: a number from 0.001 to 300000"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("requestSettings: {}", "5: requestSettings: unknown key; did you mean request_settings?"),
        ("zzz: 1", "5: zzz: unknown key"),
        ("type: virtual", "5: type: found 'virtual'; accepted: one of kubernetes, managed"),
        ("tags: [a]", "5: tags: found a list; accepted: a mapping of names (text)"),
        ("tags: {a: {b: c}}", "5: tags.a: found a mapping; accepted: text"),
        ("tags: {a: 1, a: 2}", "5: tags.a: the key is repeated; line 5 has it too"),
        ("name: again", "5: name: the key is repeated; line 1 has it too"),
        ("instance_count: 0", "5: instance_count: found '0'; accepted: an integer from 1 to 10000"),
        ("instance_count: 1.5", "5: instance_count: found '1.5'; accepted: an integer"),
        ("instance_count: {}", "5: instance_count: found a mapping; accepted: an integer"),
        ("app_insights_enabled: maybe", "5: app_insights_enabled: found 'maybe'; accepted: true or false"),
        ("gateway: {batching: {queue_delay_ms: nan}}", "queue_delay_ms: found 'nan'; accepted: a number from 0 to 6"),
        ("gateway: {batching: {queue_delay_ms: 1e999}}", "found '1e999'; accepted: a number"),
        ("gateway: {batching: {axes: {x: null}}}", "gateway.batching.axes.x: found nothing; accepted: an integer"),
        ("gateway: {runtime: {device_ids: 0}}", "device_ids: found '0'; accepted: a list of at most 64 (an integer"),
        (f"gateway: {{runtime: {{device_ids: {list(range(65))}}}}}", "device_ids: found 65 items; accepted: a list"),
        (
            "gateway: {runtime: {device_ids: [0, x]}}",
            "gateway.runtime.device_ids[1]: found 'x'; accepted: an integer",
        ),
        ("gateway: {runtime: {provider: rocm}}", "found 'rocm'; accepted: one of auto, cpu, cuda, tensorrt"),
        ("gateway: no", "5: gateway: found 'no'; accepted: a mapping (batching, runtime, limits)"),
        (f"description: [{'x' * 3}]", "5: description: found a list; accepted: text"),
        (f"instance_count: {'9' * 100}", "instance_count: found '" + "9" * 77 + "...'; accepted"),
        (
            "environment: {image: x, inference_config: {scoring_route: {port: 1}}}",
            "custom containers are not run here",
        ),
        ("tags: !secret x", "5: tags: tag !secret is not known here; remove it"),
        ("tags: *nothing", "5: tags: *nothing refers to no complete value before it"),
        ("? [a]\n: b", "5: a key is a list or a mapping; keys are text"),
        ("tags:\n  <<: text", "6: tags.<<: a merge takes a mapping or a list of mappings"),
        (
            "data_collector: {collections: {request: {enabled: 5}}}",
            "collections.request.enabled: found '5'; accepted",
        ),
    ],
)
def test_a_mistake_names_its_line_and_path_and_what_would_be_accepted(write: Write, more: str, said: str) -> None:
    found = problems(write(a=ENDPOINT, b=DEPLOYMENT + more + "\n"))
    assert said in found[0]
    assert all(one.startswith("b.yml:") for one in found)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("gateway: {keys: {primary: {}}}", "gateway.keys.primary: found neither file nor env; accepted: exactly one"),
        ("gateway: {keys: {primary: {file: a, env: B}}}", "gateway.keys.primary: found both file and env"),
        ("gateway: {keys: {secondary: {file: none}}}", "gateway.keys.secondary.file: there is no file"),
        ("gateway: {keys: {third: {env: A}}}", "gateway.keys.third: unknown key"),
        (
            "gateway: {oidc: {issuer: 'http://far', audience: a}}",
            "oidc.issuer: found 'http://far'; accepted: an https",
        ),
        ("gateway: {oidc: {issuer: 'https://[', audience: a}}", "oidc.issuer: found 'https://['; accepted: an https"),
        ("gateway: {oidc: {issuer: '', audience: a}}", "oidc.issuer: found ''; accepted: an https URL"),
        ("gateway: {oidc: {issuer: 'https://i', audience: ''}}", "gateway.oidc.audience: found ''; accepted"),
        ("gateway: {oidc: {audience: a}}", "gateway.oidc.issuer: missing; accepted: text"),
        (
            "gateway: {oidc: {issuer: 'https://i', audience: a, algorithms: [HS256]}}",
            "found 'HS256'; accepted: one of",
        ),
        ("gateway: {oidc: {issuer: 'https://i', audience: a, algorithms: []}}", "algorithms: found an empty list"),
        (
            "gateway: {oidc: {issuer: 'http://localhost:1', audience: a, jwks_uri: x}}",
            "jwks_uri: found 'x'; accepted",
        ),
        ("traffic: {blue: 50, BLUE: 50}", "traffic.BLUE: the deployment is named twice"),
        ("traffic: {blue: 101}", "traffic.blue: found '101'; accepted: an integer from 0 to 100"),
        ("mirror_traffic: {blue: 51}", "mirror_traffic.blue: found '51'; accepted: an integer from 0 to 50"),
        (
            "identity: {user_assigned_identities: [{resource_id: a}, {}]}",
            "found 2 items; accepted: a list of at most 1",
        ),
    ],
)
def test_mistakes_of_an_endpoint(write: Write, more: str, said: str) -> None:
    (problem,) = problems(write(a=ENDPOINT + more, b=DEPLOYMENT))
    assert problem.startswith("a.yml:2: ")
    assert said in problem


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("$schema: https://x/commandComponent.schema.json", "this is a component; accepted: an online endpoint"),
        ("$schema: https://x/commandJob.schema.json", "this is a job"),
        ("command: python x.py", "this is a job"),
        ("services: {web: {}}\nvolumes: {}", "cannot tell what this is by its keys (services, volumes); accepted"),
        ("{}", "cannot tell what this is by its keys (none)"),
        ("just text", "found 'just text'; accepted: an online endpoint"),
    ],
)
def test_other_documents_are_named(write: Write, text: str, said: str) -> None:
    (problem,) = problems(write(a=ENDPOINT, b=DEPLOYMENT, c=text))
    assert problem.startswith("c.yml:1: ")
    assert said in problem


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("$schema: https://x/batchEndpoint.schema.json\nname: batch", Kind.BATCH_ENDPOINT),
        ("name: batch\ndefaults: {deployment_name: x}", Kind.BATCH_ENDPOINT),
        ("name: main\nendpoint_name: batch\ncompute: azureml:c\nmodel: m", Kind.BATCH_DEPLOYMENT),
        ("name: main\nendpoint_name: batch\nmini_batch_size: 3", Kind.BATCH_DEPLOYMENT),
        ("name: digits\nversion: 1.10\npath: m.onnx", Kind.MODEL),
        ("name: sklearn\nimage: x\nconda_file: {channels: [a], dependencies: [{pip: [b, null]}]}", Kind.ENVIRONMENT),
        ("$schema: https://x/codeAsset.schema.json\nname: src\npath: src", Kind.CODE),
        ("name: images\npath: x\ntype: uri_folder", Kind.DATA),
    ],
)
def test_documents_of_every_kind_are_read(write: Write, text: str, kind: Kind) -> None:
    folder = write(a=ENDPOINT, b=DEPLOYMENT, c=text)
    read = read_documents_of(folder)
    assert (read.problems, read.notes) == ([], [])
    assert [one.kind for one in read.documents] == [Kind.ONLINE_ENDPOINT, Kind.ONLINE_DEPLOYMENT, kind]
    assert len(read_folder(folder).deployments) == 1


def test_packages_that_stand_in_an_environment_are_kept_as_they_are(write: Write) -> None:
    text = "name: sklearn\nimage: x\nconda_file: {channels: [a], dependencies: [{pip: [b, null]}]}"
    (one,) = read_documents_of(write(c=text)).documents
    assert isinstance(one.document, EnvironmentYaml)
    assert one.document.conda_file == {"channels": ["a"], "dependencies": [{"pip": ["b", None]}]}


def test_a_registered_model_is_noted_because_a_folder_cannot_look_it_up(write: Write) -> None:
    desired = read_folder(write(a=ENDPOINT, b=DEPLOYMENT.replace("m.onnx", "azureml:digits:3")))
    assert deployment(desired).model == AssetModel(reference="azureml:digits:3")
    assert desired.notes == ("b.yml: model: azureml:digits:3 is looked up when the folder is applied",)


def test_a_document_with_mistakes_is_not_called_missing_by_others(write: Write) -> None:
    traffic = ENDPOINT + "traffic: {blue: 100}\n"
    assert len(problems(write(a=traffic, b=DEPLOYMENT + "zzz: 1\n"))) == 1
    assert len(problems(write(a=traffic + "zzz: 1\n", b=DEPLOYMENT))) == 1
    assert len(problems(write(a=traffic, b=DEPLOYMENT.replace("name: blue\n", "", 1)))) == 1
    assert len(problems(write(a=ENDPOINT.replace("digits", "[]"), b=DEPLOYMENT))) == 1


def test_a_deployment_without_a_name_of_its_endpoint_says_so(write: Write) -> None:
    (problem,) = problems(write(a=ENDPOINT, b="name: blue\nmodel: m.onnx\ninstance_type: cpu\n"))
    assert problem == "b.yml:1: endpoint_name: missing; accepted: text"


def test_rules_over_the_whole_folder_are_applied(write: Write) -> None:
    assert problems(write(a=ENDPOINT + "traffic: {blu: 100}\n", b=DEPLOYMENT.replace("digits", "digit"))) == [
        "a.yml: traffic.blu: endpoint 'digits' has no deployment 'blu'; it has none at all",
        "b.yml: endpoint_name: there is no endpoint 'digit'; did you mean digits?",
    ]


# ---- files and folders -------------------------------------------------------------------------------------------


def test_a_folder_that_is_not_one_is_explained(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert problems(tmp_path / "none") == [
        f"{tmp_path}/none is not there; accepted: a folder of .yml and .yaml files"
    ]
    write()
    assert "m.onnx is a file; accepted" in problems(tmp_path / "m.onnx")[0]
    assert "holds no .yml or .yaml file" in problems(tmp_path)[0]
    monkeypatch.setattr(folder_module, "FILES_MAX", 1)
    write(a=ENDPOINT, deeper__b=DEPLOYMENT)
    assert "holds 2 YAML files; accepted: at most 1" in problems(tmp_path)[0]


def test_files_and_folders_that_cannot_be_read_are_named(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(a=ENDPOINT, b=DEPLOYMENT)

    def refuse(path: Path, *_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", refuse)
        assert problems(folder) == [f"{name}.yml: cannot be read: Permission denied" for name in "ab"]
    with monkeypatch.context() as patch:
        patch.setattr(Path, "iterdir", refuse)
        assert problems(folder) == [f"cannot list {folder}: Permission denied"]


def test_a_file_over_one_megabyte_is_refused(write: Write) -> None:
    (problem,) = problems(write(a=ENDPOINT, b="#" * 1_000_001))
    assert problem == "b.yml:1: the file has 1000001 bytes; at most 1000000 are read"


def test_a_folder_error_reads_as_one_text() -> None:
    assert str(FolderError(("a", "b"))) == "a; b"


# ---- notes -------------------------------------------------------------------------------------------------------


def test_keys_without_effect_are_noted_when_they_ask_for_something(write: Write) -> None:
    endpoint_text = ENDPOINT + "identity: {type: SystemAssigned}\npublic_network_access: disabled\n"
    deployment_text = DEPLOYMENT.replace("m.onnx", "{path: m.onnx, flavors: {a: b}}") + (
        "app_insights_enabled: true\nscale_settings: {type: target_utilization, max_instances: 3}\n"
        "liveness_probe: {initial_delay: 300}\nenvironment: azureml:AzureML-sklearn@latest\n"
        "environment_variables: {WORKER_COUNT: 2}\negress_public_network_access: disabled\n"
        "data_collector: {sampling_rate: 0.5, collections: {request: {enabled: 'True', client_id: x}}}\n"
    )
    notes = read_folder(write(a=endpoint_text, b=deployment_text)).notes
    assert [note.split(": accepted, not enforced here: ")[0] for note in notes] == [
        "a.yml: identity",
        "a.yml: public_network_access",
        "b.yml: model.flavors",
        "b.yml: environment",
        "b.yml: environment_variables",
        "b.yml: app_insights_enabled",
        "b.yml: liveness_probe",
        "b.yml: egress_public_network_access",
        "b.yml: data_collector.collections.request.client_id",
    ]


def test_the_same_keys_with_their_defaults_are_not_noted(write: Write) -> None:
    quiet = (
        "app_insights_enabled: False\nscale_settings: {type: default}\negress_public_network_access: enabled\n"
        "private_network_connection: 'false'\nmodel_mount_path:\n"
    )
    assert read_folder(write(a=ENDPOINT + "public_network_access: enabled\n", b=DEPLOYMENT + quiet)).notes == ()


def test_credentials_for_another_auth_mode_are_noted(write: Write) -> None:
    oidc = "gateway: {oidc: {issuer: 'https://i', audience: a}}\n"
    (note,) = read_folder(write(a=ENDPOINT + oidc, b=DEPLOYMENT)).notes
    assert note == "a.yml: gateway.oidc: has no effect with auth_mode key; it is for aad_token"
    keys = "auth_mode: aml_token\ngateway: {keys: {secondary: {env: X}}}\n"
    (note,) = read_folder(write(a=ENDPOINT + keys)).notes
    assert note == "a.yml: gateway.keys: has no effect with auth_mode aml_token; it is for key"
