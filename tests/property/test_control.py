"""Whatever is changed in whatever order, with restarts and failures: stored, served and told always agree."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from gateway.controlplane import control, steps
from gateway.controlplane.apply import Wanted
from gateway.controlplane.authorize import FOLDER
from gateway.controlplane.store.records import Operation, Status
from gateway.errors import Problem
from tests.support.plane import ANN, D, E, Plane, deployment, deployment_ref, endpoint, endpoint_ref, model_ref

ENDPOINTS = st.sampled_from(["digits", "letters"])
DEPLOYMENTS = st.sampled_from(["blue", "green"])
VERSIONS = st.sampled_from(["1", "2", "9"])  # there is no 9
TRAFFIC = st.sampled_from([{}, {"blue": 100}, {"green": 100}, {"blue": 60, "green": 40}])


class Changes(RuleBasedStateMachine):
    """One gateway over its lives. A change that is refused changes nothing; one that fails leaves what was served."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.before = (control.WRITE_AGAIN_S, steps.AGAIN_S)
        control.WRITE_AGAIN_S, steps.AGAIN_S = (0.0, 0.0), 0.0
        self.plane = Plane(Path(self.folder.name))
        self.told: dict[str, Operation] = {}
        self.stamp = 0

    @initialize()
    def models(self) -> None:
        self.plane.add_model("1")
        self.plane.add_model("2")

    def teardown(self) -> None:
        self.plane.close()
        control.WRITE_AGAIN_S, steps.AGAIN_S = self.before
        self.folder.cleanup()

    # Changes: each is refused whole, or has an operation that ends.

    @rule(name=ENDPOINTS, traffic=TRAFFIC, mode=st.sampled_from(["key", "aml_token"]))
    def put_endpoint(self, name: str, traffic: dict[str, int], mode: str) -> None:
        self._told(lambda: self.plane.put_endpoint(name, traffic=traffic, auth_mode=mode).operation)

    @rule(name=DEPLOYMENTS, parent=ENDPOINTS, version=VERSIONS, instances=st.integers(1, 2))
    def put_deployment(self, name: str, parent: str, version: str, instances: int) -> None:
        model = f"azureml:m:{version}"
        self._told(lambda: self.plane.put_deployment(name, parent, model=model, instance_count=instances).operation)

    @rule(name=DEPLOYMENTS, parent=ENDPOINTS)
    def delete_deployment(self, name: str, parent: str) -> None:
        self._told(lambda: self.plane.delete(deployment_ref(name, parent)))

    @rule(name=ENDPOINTS)
    def delete_endpoint(self, name: str) -> None:
        self._told(lambda: self.plane.delete(endpoint_ref(name)))

    @rule(name=ENDPOINTS, which=st.sampled_from(["primary", "secondary"]))
    def regenerate(self, name: str, which: str) -> None:
        self._told(lambda: self.plane.run(self.plane.control.regenerate(name, which, None, ANN)))

    @rule(version=VERSIONS)
    def delete_model(self, version: str) -> None:
        self._told(lambda: self.plane.run(self.plane.control.delete_asset(model_ref(version), ANN)))

    @rule(version=VERSIONS)
    def add_model(self, version: str) -> None:
        if version != "9":
            self._told(lambda: self.plane.add_model(version))

    @rule(
        wanted=st.dictionaries(ENDPOINTS, st.tuples(TRAFFIC, st.dictionaries(DEPLOYMENTS, VERSIONS))),
        prune=st.booleans(),
        dry_run=st.booleans(),
        actor=st.sampled_from([ANN, FOLDER]),
    )
    def apply(self, wanted: dict[str, Any], prune: bool, dry_run: bool, actor: Any) -> None:
        documents = []
        for name, (traffic, deployments) in wanted.items():
            documents.append(Wanted.of(E, endpoint(name, traffic=traffic), label=name))
            documents += [
                Wanted.of(D, deployment(key, name, model=f"azureml:m:{version}"), label=key)
                for key, version in deployments.items()
            ]
        before = self._rows()
        apply = self.plane.control.apply(documents, actor, prune=prune, dry_run=dry_run, wait_s=None)
        try:
            self.plane.run(apply)
        except Problem:
            assert self._rows() == before
        else:
            assert not dry_run or self._rows() == before

    # What goes wrong.

    @rule(version=VERSIONS, is_broken=st.booleans())
    def break_model(self, version: str, is_broken: bool) -> None:
        """Only for loads to come: what is served stays loaded."""
        if is_broken and not any(f"azureml:m:{version}" in self._models(one) for one in self._served()):
            self.plane.scorers.failing[f"azureml:m:{version}"] = "no good"
        else:
            self.plane.scorers.failing.pop(f"azureml:m:{version}", None)

    @rule(verb=st.sampled_from(["load", "prepare"]), times=st.integers(1, 4))
    def lose_scorers(self, verb: str, times: int) -> None:
        self.plane.scorers.dies = [verb] * times

    @rule(times=st.integers(1, 3), after=st.integers(0, 2))
    def lose_the_store(self, times: int, after: int) -> None:
        self.plane.go_away(times, after)

    @rule()
    def restart(self) -> None:
        self.plane.scorers.dies = []
        self.plane.restart()
        self.plane.settle()

    # What always holds.

    @invariant()
    def agree(self) -> None:
        self.plane.settle()
        self.plane.agree()

    @invariant()
    def what_was_told_is_so(self) -> None:
        for told in self.told.values():
            found = self._operation(told.id)
            assert found is not None
            assert found.status in (Status.SUCCEEDED, Status.FAILED)
            assert told.status in (Status.IN_PROGRESS, found.status)
            assert bool(found.error_message) == (found.status is Status.FAILED)

    @invariant()
    def traffic_goes_to_what_was_served_once(self) -> None:
        for name, one in self.plane.scorers.serves.endpoints.items():
            assert {key for key, share in one.traffic.items() if share} <= set(one.deployments), name

    def _told(self, change: Any) -> None:
        try:
            operation = change()
        except Problem:
            return
        if isinstance(operation, Operation):
            self.told[operation.id] = operation

    def _operation(self, id_: str) -> Operation | None:
        return self.plane.read(lambda tx: tx.operation(id_))

    def _rows(self) -> list[Any]:
        return self.plane.read(
            lambda tx: [(one.ref, one.document, one.served, one.state) for kind in (E, D) for one in tx.find(kind)]
        )

    def _served(self) -> list[Any]:
        return [one for one in self.plane.read(lambda tx: tx.find(D)) if one.served is not None]

    def _models(self, one: Any) -> tuple[str, str]:
        return (one.served["model"], one.document["model"])


TestChanges = Changes.TestCase
TestChanges.settings = settings(
    max_examples=25,
    stateful_step_count=20,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
