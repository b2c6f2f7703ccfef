"""The peers: what to install, how to start each as its documentation says is best, and its doors.

Common to all: one ONNX file, one onnxruntime version, one thread a session, batches of at most 64 rows, one worker a
core, loopback, no access log. Versions are pinned here; a newer peer is a change of one line.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path

import onnxruntime

from bench.peers import wires
from bench.peers.peer import ROWS_MAX, Door, Launch, Peer, Place

SERVERS = Path(__file__).resolve().parent / "servers"
ENGINE = f"onnxruntime=={onnxruntime.__version__}"
GATEWAY = "gateway"
CEILING = "bare"


def _script(place: Place, name: str, *arguments: str) -> list[str]:
    return [str(place.python), str(SERVERS / name), *arguments]


# -- This gateway, and the ceiling.


def _gateway(place: Place) -> Launch:
    folder = place.work / "apply"
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(place.model.path, folder / "model.onnx")
    name = place.model.name
    (folder / "endpoint.yml").write_text(f"name: {name}\nauth_mode: key\ntraffic:\n  main: 100\n")
    (folder / "deployment.yml").write_text(
        f"name: main\nendpoint_name: {name}\nmodel:\n  path: ./model.onnx\n  type: custom_model\n"
        "instance_type: Standard_DS3_v2\n"
    )
    command = [*_gateway_command(), "serve", "--apply", str(folder), "--state", str(place.work / "state")]
    command += ["--scoring", f"http://127.0.0.1:{place.port}"]
    command += ["--management", f"https://127.0.0.1:{place.spare_ports[0]}"]
    command += ["--telemetry", f"http://127.0.0.1:{place.spare_ports[1]}"]
    return Launch(command=command)


def _gateway_command() -> list[str]:
    return [sys.executable, "-m", "gateway"]


def _gateway_key(place: Place) -> Mapping[str, str]:
    command = [*_gateway_command(), "keys", place.model.name, "--state", str(place.work / "state")]
    answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=60)
    return {"authorization": f"Bearer {json.loads(answer.stdout)['primaryKey']}"}


def _bare(place: Place) -> Launch:
    return Launch(command=[sys.executable, str(SERVERS / "bare_server.py")])


# -- The peers.


def _mosec(place: Place) -> Launch:
    arguments = ["--address", "127.0.0.1", "--port", str(place.port), "--log-level", "warning"]
    return Launch(command=_script(place, "mosec_server.py", *arguments))


def _triton(place: Place) -> Launch:
    """Triton's own front as PyTriton's wheel brings it, with a repository whose model is a Python backend's."""
    packages = next((place.python.parents[1] / "lib").glob("python3.*")) / "site-packages"
    home = packages / "pytriton" / "tritonserver"
    model = place.work / "repository" / place.model.name
    (model / "1").mkdir(parents=True, exist_ok=True)
    shutil.copyfile(SERVERS / "triton_model.py", model / "1" / "model.py")
    backends = place.work / "backends"
    shutil.copytree(home / "backends", backends, dirs_exist_ok=True)
    version = packages.parent.name.removeprefix("python")
    shutil.copy(home / "python_backend_stubs" / version / "triton_python_backend_stub", backends / "python")
    (model / "config.pbtxt").write_text(_triton_config(place))
    command = [str(home / "bin" / "tritonserver"), f"--model-repository={place.work / 'repository'}"]
    command += [f"--backend-directory={backends}", f"--http-port={place.port}", "--http-address=127.0.0.1"]
    command += ["--allow-grpc=false", "--allow-metrics=false", "--log-info=false"]
    # Their path is relative to where the stub was.
    libraries = f"{_libpython()}:{packages / 'nvidia_pytriton.libs'}"
    return Launch(command=command, environment={"PEER_PATH": f"{SERVERS}:{packages}", "LD_LIBRARY_PATH": libraries})


def _libpython() -> str:
    """Triton's stub loads libpython; it must be the interpreter's own, as PyTriton's installation page says."""
    return str(sysconfig.get_config_var("LIBDIR"))


def _triton_config(place: Place) -> str:
    def tensor(name: str, size: int) -> str:
        return f'[ {{ name: "{name}" data_type: TYPE_FP32 dims: [ {size} ] }} ]'

    return (
        f'name: "{place.model.name}"\nbackend: "python"\nmax_batch_size: {ROWS_MAX}\n'
        f"input {tensor(place.model.input, place.model.features)}\n"
        f"output {tensor(place.model.output, place.model.outputs)}\n"
        f"dynamic_batching {{ }}\ninstance_group [ {{ count: {place.workers} kind: KIND_CPU }} ]\n"
    )


def _pytriton(place: Place) -> Launch:
    environment = {"LD_LIBRARY_PATH": _libpython(), "PYTRITON_HOME": str(place.work)}
    return Launch(command=_script(place, "pytriton_server.py"), environment=environment)


def _mlserver(place: Place) -> Launch:
    settings = {
        "host": "127.0.0.1",
        "http_port": place.port,
        "grpc_port": place.spare_ports[0],
        "metrics_port": place.spare_ports[1],
        "metrics_endpoint": None,
        "debug": False,
        "gzip_enabled": False,
        "parallel_workers": 0 if place.workers == 1 else place.workers,
    }
    model = {
        "name": place.model.name,
        "implementation": "mlserver_model.Scorer",
        "max_batch_size": ROWS_MAX,
        "max_batch_time": 0.001,
        "parameters": {"uri": str(place.model.path)},
    }
    (place.work / "settings.json").write_text(json.dumps(settings))
    (place.work / "model-settings.json").write_text(json.dumps(model))
    return Launch(command=[str(place.python.parent / "mlserver"), "start", str(place.work)])


def _litserve(place: Place) -> Launch:
    return Launch(command=_script(place, "litserve_server.py"))


def _bentoml(place: Place) -> Launch:
    command = [str(place.python.parent / "bentoml"), "serve", "bentoml_server:Scorer", "--working-dir", str(SERVERS)]
    command += ["--host", "127.0.0.1", "--port", str(place.port)]
    environment = {"BENTOML_HOME": str(place.work), "BENTOML_DO_NOT_TRACK": "True"}
    return Launch(command=command, environment=environment)


def _ray(place: Place) -> Launch:
    environment = {
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        # Its workers are nice by default, and would yield to whoever else is on the core.
        "RAY_worker_niceness": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_SERVE_LOG_TO_STDERR": "0",
    }
    return Launch(command=_script(place, "ray_server.py"), environment=environment)


def _kserve(place: Place) -> Launch:
    return Launch(command=_script(place, "kserve_server.py"))


def _torchserve(place: Place) -> Launch:
    """The model is a folder in the store with a manifest, as the archiver's `no-archive` format leaves it."""
    name = place.model.name
    folder = place.work / "store" / name
    (folder / "MAR-INF").mkdir(parents=True, exist_ok=True)
    shutil.copyfile(SERVERS / "torchserve_handler.py", folder / "torchserve_handler.py")
    manifest = {
        "createdOn": "",
        "runtime": "python",
        "model": {"modelName": name, "handler": "torchserve_handler.py", "modelVersion": "1.0"},
        "archiverVersion": "0.12.0",
    }
    (folder / "MAR-INF" / "MANIFEST.json").write_text(json.dumps(manifest))
    (place.work / "config.properties").write_text(_torchserve_properties(place))
    command = [str(place.python.parent / "torchserve"), "--start", "--foreground", "--ncs", "--disable-token-auth"]
    command += ["--ts-config", str(place.work / "config.properties"), "--model-store", str(place.work / "store")]
    # Its pid file lies in the temporary folder.
    environment = {"TMPDIR": str(place.work), "LOG_LOCATION": str(place.work), "METRICS_LOCATION": str(place.work)}
    return Launch(command=command, environment=environment)


def _torchserve_properties(place: Place) -> str:
    model = {
        "defaultVersion": True,
        "marName": place.model.name,
        "minWorkers": place.workers,
        "maxWorkers": place.workers,
        "batchSize": ROWS_MAX,
        "maxBatchDelay": 1,
        "responseTimeout": 60,
    }
    values = {
        "inference_address": f"http://127.0.0.1:{place.port}",
        "management_address": f"http://127.0.0.1:{place.spare_ports[0]}",
        "metrics_address": f"http://127.0.0.1:{place.spare_ports[1]}",
        "grpc_inference_port": place.spare_ports[2],
        "grpc_management_port": place.spare_ports[3],
        "enable_metrics_api": "false",
        "async_logging": "true",
        "job_queue_size": 1024,
        "number_of_netty_threads": place.workers,
        "models": json.dumps({place.model.name: {"1.0": model}}),
        "load_models": place.model.name,
    }
    return "".join(f"{name}={value}\n" for name, value in values.items())


def _azureml(place: Place) -> Launch:
    arguments = ["--entry_script", str(SERVERS / "azureml_score.py"), "--port", str(place.port)]
    return Launch(command=_script(place, "azureml_server.py", *arguments, "--worker_count", str(place.workers)))


def _fastapi(place: Place) -> Launch:
    return Launch(command=_script(place, "fastapi_server.py"))


V2_DOORS = (
    Door(wire=wires.V2_JSON, path="/v2/models/{model}/infer"),
    Door(wire=wires.V2_BINARY, path="/v2/models/{model}/infer"),
)

PEERS: tuple[Peer, ...] = (
    Peer(
        name=GATEWAY,
        title="this gateway",
        package="inference-gateway",
        requirements=(),
        doors=(
            Door(wire=wires.JSON, path="/endpoints/{model}/score"),
            Door(wire=wires.V2_BINARY, path="/v2/models/{model}/infer"),
        ),
        launch=_gateway,
        settings="defaults: keys, limits, deadlines and metrics on; TLS off",
        headers=_gateway_key,
    ),
    Peer(
        name=CEILING,
        title="bare protocol (a constant)",
        package="httptools",
        requirements=(),
        doors=(Door(wire=wires.JSON, path="/score"),),
        launch=_bare,
        settings="asyncio protocol on httptools and uvloop, no model: the ceiling",
        checked=False,
    ),
    Peer(
        name="mosec",
        title="mosec",
        package="mosec",
        requirements=("mosec[msgpack]==0.9.8", "orjson==3.13.0", ENGINE),
        doors=(Door(wire=wires.JSON, path="/json"), Door(wire=wires.MSGPACK, path="/packed")),
        launch=_mosec,
        settings="max_batch_size 64, max_wait_time 1 ms (the shortest), a worker a core, orjson, msgpack bytes",
    ),
    Peer(
        name="triton",
        title="Triton front, Python backend",
        package="nvidia-pytriton",
        requirements=("nvidia-pytriton==0.7.0", ENGINE),
        doors=V2_DOORS,
        launch=_triton,
        settings="dynamic_batching without a delay, max_batch_size 64, an instance a core; gRPC, metrics and log off",
    ),
    Peer(
        name="pytriton",
        title="PyTriton",
        package="nvidia-pytriton",
        requirements=("nvidia-pytriton==0.7.0", ENGINE),
        doors=V2_DOORS,
        launch=_pytriton,
        settings="DynamicBatcher without a delay, max_batch_size 64, a function instance a core",
    ),
    Peer(
        name="mlserver",
        title="MLServer",
        package="mlserver",
        # Its workers do not start with uvloop 0.22 or newer.
        requirements=("mlserver==1.7.1", "uvloop==0.21.0", ENGINE),
        doors=(Door(wire=wires.V2_JSON, path="/v2/models/{model}/infer"),),
        launch=_mlserver,
        settings="max_batch_size 64, max_batch_time 1 ms, on one core no parallel_workers, no gzip",
    ),
    Peer(
        name="litserve",
        title="LitServe",
        package="litserve",
        requirements=("litserve==0.2.19", "pyzmq>=26", ENGINE),
        doors=(Door(wire=wires.JSON, path="/score"),),
        launch=_litserve,
        settings="max_batch_size 64, batch_timeout 1 ms, fast_queue (ZeroMQ), a worker and an API server a core",
    ),
    Peer(
        name="bentoml",
        title="BentoML",
        package="bentoml",
        requirements=("bentoml==1.4.39", ENGINE),
        doors=(Door(wire=wires.BENTO_JSON, path="/score"),),
        launch=_bentoml,
        settings="batchable, max_batch_size 64, default latency target, a worker a core, metrics and access log off",
    ),
    Peer(
        name="ray",
        title="Ray Serve",
        package="ray",
        requirements=("ray[serve]==2.60.0", "orjson==3.13.0", ENGINE),
        doors=(Door(wire=wires.JSON, path="/score"),),
        launch=_ray,
        settings="RAY_SERVE_THROUGHPUT_OPTIMIZED, serve.batch of 64 without a wait, a replica a core, orjson",
    ),
    Peer(
        name="kserve",
        title="KServe Python server",
        package="kserve",
        requirements=("kserve==0.21.0", ENGINE),
        doors=V2_DOORS,
        launch=_kserve,
        settings="gRPC and latency log off, a worker a core; it has no batching outside Kubernetes",
    ),
    Peer(
        name="torchserve",
        title="TorchServe",
        package="torchserve",
        requirements=("torchserve==0.12.0", "torch==2.13.0+cpu", "pyyaml==6.0.3", "orjson==3.13.0", ENGINE),
        pip_options=("--retries", "2", "--extra-index-url", "https://download.pytorch.org/whl/cpu"),
        doors=(
            Door(wire=wires.JSON, path="/predictions/{model}"),
            Door(wire=wires.RAW, path="/predictions/{model}"),
        ),
        launch=_torchserve,
        settings="batchSize 64, maxBatchDelay 1 ms, a worker a core, asynchronous log, metrics API off; needs Java",
    ),
    Peer(
        name="azureml",
        title="azureml-inference-server-http",
        package="azureml-inference-server-http",
        requirements=("azureml-inference-server-http==1.5.1", ENGINE),
        doors=(Door(wire=wires.JSON, path="/score"),),
        launch=_azureml,
        settings="worker_count one a core; it has no batching",
    ),
    Peer(
        name="fastapi",
        title="FastAPI by hand",
        package="fastapi",
        requirements=("fastapi==0.165.0", "uvicorn[standard]==0.54.0", ENGINE),
        doors=(Door(wire=wires.JSON, path="/score"),),
        launch=_fastapi,
        settings="uvloop, httptools, typed body and answer, async route, a worker a core, no access log; no batching",
    ),
)
