"""Which paths score, and what V2 clients call a model there.

At the root a model is an endpoint and a version is a deployment. Below an endpoint's own address, which clients of
Triton take for the server's, a model that came in a Triton repository has the repository's name and version number
as well; so their URLs, names and answers are those that they have with Triton.
Errors: Problem NOT_FOUND, naming what is served. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from gateway.dataplane.live import LiveDeployment, LiveEndpoint, Target
from gateway.errors import Code, Problem
from gateway.snapshot import DeploymentSpec

# What stands between an endpoint's name and V2's paths: clients are given the base, or the scoring URI as it is.
BASES = ("", "/score")
MODELS = "/v2/models/"


def scoring_paths(endpoint: LiveEndpoint) -> dict[str, Target]:
    """Every path that scores on this endpoint, lower-cased, and with a model's name as it is spelled: Azure's, and
    V2's with and without a version."""
    name = endpoint.name.lower()
    score = Target(path=f"/endpoints/{name}/score", endpoint=endpoint, deployment="", is_v2=False)
    found = {score.path: score}
    bases = [(f"/v2/models/{name}", "")]
    for base in BASES:
        bases += [(f"/endpoints/{name}{base}/v2/models/{one or name}", one) for one in _models(endpoint)]
    for base, model in bases:
        for path, deployment in _below(endpoint, base, model):
            target = Target(path=path.lower(), endpoint=endpoint, deployment=deployment, is_v2=True, model=model)
            found[path] = found[path.lower()] = target
    return found


def suffix_of(domain: str) -> str:
    """How the host names of endpoints end; "" for none."""
    return "." + domain.lower().strip(".") if domain else ""


def endpoint_in_host(headers: Sequence[tuple[bytes, bytes]], suffix: str) -> str:
    """The endpoint that the host name is of, lower-cased; "" for any other host."""
    for name, value in headers:
        if name == b"host":
            host = value.decode("latin-1").lower().rsplit(":", 1)[0].rstrip(".")
            if suffix and host.endswith(suffix):
                return host[: -len(suffix)]
    return ""


def path_at_host(path: str, host: str, endpoints: Mapping[str, LiveEndpoint], targets: Mapping[str, Target]) -> str:
    """`{endpoint}.<domain>/score` is `/endpoints/{endpoint}/score`, and so are its models. V2's
    other paths say by themselves where they lead, but for models that no endpoint is called. `host`: the endpoint."""
    below = f"/endpoints/{host}{path}"
    if path.startswith(MODELS):
        model = path.split("/")[3].lower()
        is_own = f"/endpoints/{host}{MODELS}{model}/infer" in targets
        return below if is_own or (model not in endpoints and model != "stats") else path
    return path if path.startswith(("/v2", "/endpoints/")) else below


def _below(endpoint: LiveEndpoint, base: str, model: str) -> Iterator[tuple[str, str]]:
    """The paths of one model, each with the deployment that it names."""
    yield f"{base}/infer", ""
    versions = {spec.model_version for spec in endpoint.spec.deployments.values() if _is_called(spec, model)}
    for version in {*endpoint.spec.deployments, *versions}:
        yield f"{base}/versions/{version}/infer", deployment_of(endpoint, model, version)


def _models(endpoint: LiveEndpoint) -> list[str]:
    """The names that models have below the endpoint's address; "" for the endpoint's own, where none has it."""
    names = sorted({spec.model_name for spec in endpoint.spec.deployments.values()} - {""})
    return names if any(name.lower() == endpoint.name.lower() for name in names) else ["", *names]


def _is_called(spec: DeploymentSpec, model: str) -> bool:
    return bool(model) and spec.model_name.lower() == model.lower()


def deployment_of(endpoint: LiveEndpoint, model: str, version: str) -> str:
    """The deployment that a version means: one of this name, or the one with most traffic of those that serve the
    repository's version of this number."""
    named = endpoint.spec.deployments
    if version.lower() in named:
        return version.lower()
    found = [key for key, spec in named.items() if _is_called(spec, model) and spec.model_version == version]
    return max(found, key=lambda key: endpoint.spec.traffic.get(key, 0), default=version)


def check_model(deployment: LiveDeployment, model: str) -> None:
    """Whether the deployment serves the model that a path names; "" is the endpoint itself. Errors: Problem."""
    if not model or model.lower() == deployment.endpoint_name.lower() or _is_called(deployment.spec, model):
        return
    serves = deployment.spec.model_name or deployment.endpoint_name
    raise Problem(
        Code.NOT_FOUND,
        f"deployment {deployment.name!r} of endpoint {deployment.endpoint_name!r} serves model {serves!r}, not "
        f"{model!r}; the header azureml-model-deployment names another deployment",
        reason="not_found",
    )


def called(deployment: LiveDeployment, model: str) -> tuple[str, str]:
    """Name and version of what answers, to a client that called it `model` ("" for the endpoint)."""
    if _is_called(deployment.spec, model):
        return deployment.spec.model_name, deployment.spec.model_version
    return deployment.endpoint_name, deployment.name
