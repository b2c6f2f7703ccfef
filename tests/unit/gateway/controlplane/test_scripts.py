"""Scripts: which crew serves a deployment, when a new one is made, and when the old one and all that it held goes."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import Coroutine, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.collection.spec import CollectionSpec, CollectorSpec
from gateway.controlplane.blobs.files import Files
from gateway.controlplane.model_store import ModelStore
from gateway.controlplane.scripts import Limits, ScriptRefused, Scripts
from gateway.crew import CrewFailed
from gateway.environments import EnvironmentRefused
from gateway.liveness import Probe
from gateway.resources import AssetTree, Deployment, Script, ScriptEnvironment
from runtimes import BatchingSpec, BatchLimits, ScriptSpec
from tests.support.fake_crews import FakeCrews, FakeEnvironments

NAME = "digits/blue"
LIMITS = Limits(
    memory_bytes=1 << 20,
    cpu_seconds=60,
    files_max=7,
    processes_max=3,
    sandbox="bwrap",
    hidden=(Path("/state"),),
    readable=(Path("/data"),),
)


class FakeSink:
    """`admitted`: (name, collections) by secret; `forgotten`: secrets in order."""

    def __init__(self) -> None:
        self.admitted: dict[str, tuple[str, list[str]]] = {}
        self.forgotten: list[str] = []

    async def admit(self, name: str, spec: CollectorSpec) -> tuple[str, dict[str, str]]:
        secret = f"secret {len(self.admitted)}"
        self.admitted[secret] = (name, [one.name for one in spec.collections])
        return secret, {"AZUREML_MDC_HOST": secret}

    def forget(self, secret: str) -> None:
        self.forgotten.append(secret)


class World:
    """Scripts on real folders of content, with crews that only say what they were asked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.runner = asyncio.Runner()
        self.files = Files(folder / "assets", bytes_max=1 << 30)
        self.trees = folder / "scripts"
        self.sink = FakeSink()
        self.crews, self.environments = self.run(self._fakes())
        self.scripts = Scripts(
            trees=ModelStore(self.files, self.trees, links=False),
            environments=self.environments,
            folder=folder / "workers",
            limits=LIMITS,
            version="v1",
            sink=self.sink,
        )
        self.scripts.attach(self.crews)

    async def _fakes(self) -> tuple[FakeCrews, FakeEnvironments]:
        return FakeCrews(), FakeEnvironments()

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(coroutine)

    def tree(self, name: str, folder: str = "", **files: str) -> AssetTree:
        listed = []
        for path, text in files.items():
            source = self.folder / "given"
            source.write_text(text)
            listed.append((f"{path}.py", *self.files.add_file(source)))
        return AssetTree(reference=f"azureml:{name}:1", files=tuple(listed), folder=folder)

    def deployment(self, text: str = "1", **changes: Any) -> Deployment:
        given: dict[str, Any] = {
            "code": self.tree("code", "src", score=text),
            "scoring_script": "score.py",
            "environment": ScriptEnvironment(reference="env"),
        }
        own = ("instance_count", "request_timeout_ms", "batching")
        of_deployment = {key: changes.pop(key) for key in own if key in changes}
        return Deployment(name="blue", endpoint_name="digits", script=Script(**(given | changes)), **of_deployment)

    def ensure(self, deployment: Deployment, name: str = NAME) -> ScriptSpec:
        spec = self.run(self.scripts.ensure(name, deployment))
        assert isinstance(spec, ScriptSpec)
        return spec

    def serve(self, deployment: Deployment, name: str = NAME) -> str:
        pool = self.ensure(deployment, name).pool
        self.settle({name: pool})
        return pool

    def settle(self, served: dict[str, str]) -> None:
        async def settled() -> None:
            self.scripts.settle(served)

        self.run(settled())
        self.rest()

    def rest(self) -> None:
        """What goes on in the background ends, where it can."""

        async def rested() -> None:
            while pending := {one for one in self.scripts._ending if self.crews.may_stop.is_set()}:
                await asyncio.wait(pending)

        self.run(rested())

    def refusal(self, deployment: Deployment) -> ScriptRefused:
        with pytest.raises(ScriptRefused) as caught:
            self.ensure(deployment)
        return caught.value

    @property
    def kept(self) -> list[Path]:
        return list(self.trees.iterdir()) if self.trees.is_dir() else []

    def in_use(self, *wanted: str) -> set[str]:
        self.run(self.scripts.collect(wanted))
        in_use: set[str] = self.environments.collected[-1] - {""}
        return in_use


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.run(made.scripts.close())
    made.runner.close()
    made.files.close()


def test_a_crew_finds_what_azure_promises_a_script(world: World) -> None:
    model = world.tree("m", "net", weights="w")
    variables = {"A": "b", "AZUREML_MODEL_DIR": "/mine", "WORKER_COUNT": "2", "AML_CORS_ORIGINS": " a , ,b"}
    world.crews.swagger = {"3": "{}"}
    served = world.ensure(world.deployment(model=model, variables=variables, instance_count=3, init_timeout_s=9.0))
    spec = world.crews.running[served.pool]
    assert (served.workers, served.swagger, served.cors_origins) == (6, {"3": "{}"}, ("a", "b"))
    assert (spec.code_dir / "score.py").read_text() == "1"
    assert spec.code_dir.name == "src"
    assert (Path(spec.environment["AZUREML_MODEL_DIR"]) / "net" / "weights.py").read_text() == "w"
    assert spec.environment["AML_APP_ROOT"] == spec.environment["AZUREML_SOURCE_DIRECTORY"] == str(spec.code_dir)
    assert (spec.environment["AZUREML_ENTRY_SCRIPT"], spec.environment["A"]) == ("score.py", "b")
    assert (spec.python, spec.workers, spec.init_timeout_s) == (Path("/env/bin/python"), 6, 9.0)
    assert (spec.memory_bytes, spec.files_max, spec.processes_max, spec.sandbox) == (1 << 20, 7, 3, "bwrap")
    assert (spec.server_version, spec.folder.parent) == ("v1", world.folder / "workers")
    assert (spec.cpu_seconds, spec.hidden, spec.liveness) == (60, (Path("/state"),), Probe())
    model_dir = Path(spec.environment["AZUREML_MODEL_DIR"])
    assert spec.readable == (spec.code_dir.parent, model_dir, Path("/data"))


def test_what_is_built_and_what_workers_write_is_followed_from_the_first_line(world: World) -> None:
    async def story() -> None:
        world.environments.notes = ("conda package x: left out",)
        world.crews.may_start.clear()
        making = asyncio.create_task(world.scripts.ensure(NAME, world.deployment()))
        while not world.scripts.streams.of(NAME).end:
            await asyncio.sleep(0)
        assert world.scripts.is_running(NAME)
        assert world.scripts.streams.of(NAME).since(0)[:1] == ["[environment] found"]
        world.crews.may_start.set()
        served = await making
        world.crews.running[served.pool].on_output(1, b"init ran\n")
        lines = world.scripts.streams.of(NAME).since(1)
        assert lines == ["[environment] note: conda package x: left out", "[worker 1] init ran"]
        assert world.scripts.is_running(NAME)
        await world.scripts.forget(NAME)
        assert not world.scripts.is_running(NAME)

    world.run(story())
    world.run(world.scripts.collect([NAME]))
    assert world.scripts.streams.of(NAME).end == 3
    world.run(world.scripts.collect([]))
    assert world.scripts.streams.of(NAME).end == 0


def test_a_model_without_code_is_the_folder_that_is_served(world: World) -> None:
    model = world.tree("flow", "iris", MLmodel="m")
    world.serve(world.deployment(code=None, scoring_script="", model=model))
    (spec,) = world.crews.running.values()
    assert (spec.scoring_script, spec.code_dir.name) == ("", "iris")
    assert (spec.code_dir / "MLmodel.py").read_text() == "m"
    assert spec.environment["AZUREML_MODEL_DIR"] == str(spec.code_dir.parent)
    assert "AZUREML_ENTRY_SCRIPT" not in spec.environment
    assert spec.readable == (spec.code_dir.parent, Path("/data"))


def test_files_without_a_folder_lie_where_the_variables_say(world: World) -> None:
    world.serve(world.deployment(code=world.tree("c", score="x"), model=world.tree("m", weights="w")))
    (spec,) = world.crews.running.values()
    assert (spec.code_dir / "score.py").is_file()
    assert (Path(spec.environment["AZUREML_MODEL_DIR"]) / "weights.py").is_file()


def test_without_a_model_there_is_no_model_folder(world: World) -> None:
    world.serve(world.deployment())
    (spec,) = world.crews.running.values()
    assert "AZUREML_MODEL_DIR" not in spec.environment


def test_what_a_script_writes_does_not_reach_the_content(world: World) -> None:
    deployment = world.deployment()
    world.serve(deployment)
    (spec,) = world.crews.running.values()
    (spec.code_dir / "score.py").write_text("changed")
    assert deployment.script is not None
    assert isinstance(deployment.script.code, AssetTree)
    digest = deployment.script.code.files[0][1]
    assert hashlib.sha256(world.files.path_of(digest).read_bytes()).hexdigest() == digest


def test_the_same_script_keeps_its_crew_whatever_else_changes(world: World) -> None:
    pool = world.serve(world.deployment())
    assert world.ensure(world.deployment(request_timeout_ms=9000)).pool == pool
    assert world.ensure(replace(world.deployment(), description="other")).pool == pool
    assert world.crews.stopped == []
    assert list(world.crews.running) == [pool]


@pytest.mark.parametrize(
    "changes",
    [
        {"text": "2"},
        {"scoring_script": "other.py"},
        {"variables": {"A": "b"}},
        {"environment": ScriptEnvironment(reference="new")},
    ],
)
def test_another_script_gets_a_crew_of_its_own_beside_the_old_one(world: World, changes: dict[str, Any]) -> None:
    before = world.serve(world.deployment())
    after = world.ensure(world.deployment(**changes)).pool
    assert set(world.crews.running) == {before, after}
    world.settle({NAME: after})
    assert list(world.crews.running) == [after]
    assert world.crews.stopped == [(before, 5.0)]


def test_another_number_of_instances_changes_the_same_crew(world: World) -> None:
    pool = world.serve(world.deployment())
    assert world.ensure(world.deployment(instance_count=3)) == ScriptSpec(pool=pool, workers=3)
    assert world.crews.workers == {pool: 3}
    world.crews.failing = CrewFailed("UserScriptInitFailed", "no more")
    assert world.refusal(world.deployment(instance_count=4)).code == "UserScriptInitFailed"
    world.crews.failing = None
    assert world.ensure(world.deployment(instance_count=3)).workers == 3


def test_a_script_that_batches_is_known_with_its_limits_which_change_no_process(world: World) -> None:
    world.crews.batches = True
    pool = world.serve(world.deployment())
    found = world.ensure(world.deployment())
    assert found.batching == BatchLimits()
    assert found.batching_reason.startswith("batched by run_batch(), at most 64 rows: the default")
    given = BatchingSpec(limits=BatchLimits(batch_rows_max=5, rows_learned=False, queue_items_max=7))
    changed = world.ensure(world.deployment(batching=given, instance_count=2))
    assert (changed.pool, changed.workers, changed.queue_items_max) == (pool, 2, 7)
    assert changed.batching is not None
    assert changed.batching.batch_rows_max == 5
    assert list(world.crews.running) == [pool]


def test_an_old_crew_ends_after_the_longest_timeout_that_its_requests_had(world: World) -> None:
    pool = world.serve(world.deployment(request_timeout_ms=2000))
    world.serve(world.deployment(request_timeout_ms=9000))
    world.serve(world.deployment(request_timeout_ms=1000))
    world.settle({})
    assert world.crews.stopped == [(pool, 9.0)]
    assert world.kept == []


def test_what_was_made_ready_for_nothing_is_forgotten_at_once(world: World) -> None:
    served = world.serve(world.deployment())
    ahead = world.ensure(world.deployment("2")).pool
    assert len(world.kept) == 2
    world.run(world.scripts.forget(NAME))
    world.run(world.scripts.forget(NAME))
    assert world.crews.stopped == [(ahead, 0.0)]
    assert list(world.crews.running) == [served]
    assert len(world.kept) == 1


def test_a_newer_attempt_takes_the_place_of_the_one_before(world: World) -> None:
    first = world.ensure(world.deployment("1")).pool
    second = world.ensure(world.deployment("2")).pool
    assert world.crews.stopped == [(first, 0.0)]
    assert list(world.crews.running) == [second]


def test_what_another_change_publishes_meanwhile_leaves_both_crews_alone(world: World) -> None:
    old = world.serve(world.deployment("old"))
    new = world.ensure(world.deployment("new")).pool
    # Another endpoint's change publishes this deployment as it is.
    assert world.serve(world.deployment("old")) == old
    assert set(world.crews.running) == {old, new}
    world.settle({NAME: new})
    assert list(world.crews.running) == [new]


def test_two_attempts_at_once_leave_one_crew(world: World) -> None:
    async def both() -> None:
        world.crews.may_start.clear()
        attempts = [
            asyncio.create_task(world.scripts.ensure(NAME, world.deployment(text))) for text in ("first", "second")
        ]
        await asyncio.sleep(0)
        world.crews.may_start.set()
        await asyncio.gather(*attempts)

    world.run(both())
    world.rest()
    assert len(world.crews.running) == 1


@pytest.mark.parametrize(
    ("found", "code"),
    [
        ("UserScriptImportError", "UserScriptImportError"),
        ("WorkerEnded", "UserScriptInitFailed"),
        ("InitTimedOut", "ResourceNotReady"),
        ("SandboxFailed", "BadArgument"),
    ],
)
def test_a_crew_that_fails_gives_its_code_and_all_that_it_held(world: World, found: str, code: str) -> None:
    world.crews.failing = CrewFailed(found, "init() raised ValueError", traceback="secret")
    refusal = world.refusal(world.deployment())
    assert (refusal.code, str(refusal)) == (code, "init() raised ValueError")
    assert world.kept == []
    assert world.in_use() == set()
    world.crews.failing = None
    world.serve(world.deployment())


def test_the_last_words_of_a_crew_that_failed_are_told_until_one_starts(world: World) -> None:
    world.crews.failing = CrewFailed("UserScriptInitFailed", "init() raised ValueError", log="line 1\nline 2")
    world.refusal(world.deployment())
    assert world.scripts.tail(NAME, 5) == "line 1\nline 2"
    assert world.scripts.tail(NAME, 1) == "line 2"
    assert world.scripts.tail(NAME, 0) == ""
    world.crews.failing = None
    served = world.serve(world.deployment())
    assert world.scripts.tail(NAME, 5) == f"5 lines of {served}"

    # An update that failed is told after what serves.
    world.environments.refused["env"] = EnvironmentRefused("ImageBuildFailure", "no such package")
    world.refusal(world.deployment("2"))
    assert world.scripts.tail(NAME, 5) == f"5 lines of {served}\nno such package"
    world.settle({})
    assert world.scripts.tail(NAME, 5) is None


def test_last_words_go_with_their_deployment(world: World) -> None:
    world.crews.failing = CrewFailed("UserScriptInitFailed", "init() raised ValueError", log="line 1")
    names = ["digits/blue", "digits/green", "digits2/blue"]

    def fail() -> None:
        for name in names:
            with pytest.raises(ScriptRefused):
                world.ensure(world.deployment(), name)

    def told() -> list[str]:
        return [name for name in names if world.scripts.tail(name, 5) is not None]

    fail()
    # Another change says nothing of it.
    world.settle({})
    assert told() == names
    world.scripts.forget_words("digits/blue")
    assert told() == names[1:]
    fail()
    world.scripts.forget_words("digits")
    assert told() == names[2:]
    fail()
    world.run(world.scripts.collect(["digits/green"]))
    assert told() == ["digits/green"]


def test_an_environment_that_is_refused_gives_its_code(world: World) -> None:
    world.environments.refused["env"] = EnvironmentRefused("ImageBuildFailure", "no such package")
    refusal = world.refusal(world.deployment())
    assert (refusal.code, str(refusal)) == ("ImageBuildFailure", "no such package")
    assert world.kept == []


def test_what_an_environment_leaves_out_is_logged(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.environments.notes = ("conda package x: left out",)
    world.serve(world.deployment())
    assert "environment of digits/blue: conda package x: left out" in caplog.text


def test_an_asset_without_files_is_refused_for_its_folder_would_be_the_root(world: World) -> None:
    model = AssetTree(reference="azureml:far:1")
    assert "azureml:far:1" in str(world.refusal(world.deployment(model=model)))
    assert world.crews.running == {}


def test_content_that_is_gone_refuses_the_script(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    code = AssetTree(reference="azureml:gone:1", files=(("score.py", "0" * 64, 1),))
    assert "azureml:gone:1 cannot be read" in str(world.refusal(world.deployment(code=code)))


def test_a_start_that_is_given_up_holds_nothing(world: World) -> None:
    async def given_up() -> None:
        world.crews.may_start.clear()
        starting = asyncio.create_task(world.scripts.ensure(NAME, world.deployment()))
        await asyncio.sleep(0.05)
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        assert starting.cancelled()

    world.run(given_up())
    assert world.kept == []
    assert world.in_use() == set()


def test_a_crew_ends_even_where_nobody_waits_for_it(world: World) -> None:
    world.ensure(world.deployment())

    async def given_up() -> None:
        world.crews.may_stop.clear()
        forgetting = asyncio.create_task(world.scripts.forget(NAME))
        await asyncio.sleep(0)
        forgetting.cancel()
        await asyncio.gather(forgetting, return_exceptions=True)
        world.crews.may_stop.set()

    world.run(given_up())
    world.rest()
    assert world.crews.running == {}
    assert world.kept == []


def test_files_that_two_deployments_share_stay_until_both_are_gone(world: World) -> None:
    one = world.ensure(world.deployment()).pool
    other = world.ensure(world.deployment(), "digits/green").pool
    assert one != other
    world.settle({NAME: one, "digits/green": other})
    world.settle({NAME: one})
    assert len(world.kept) == 1
    world.settle({})
    assert world.kept == []


def test_an_environment_is_in_use_while_a_crew_runs_in_it_or_a_wanted_deployment_had_it(world: World) -> None:
    world.serve(world.deployment(environment=ScriptEnvironment(reference="served")))
    world.ensure(world.deployment(environment=ScriptEnvironment(reference="ahead")), "digits/green")
    world.crews.failing = CrewFailed("WorkerEnded", "it ended")
    world.refusal(world.deployment(environment=ScriptEnvironment(reference="tried")))
    assert world.in_use("digits/blue") == {"served", "ahead", "tried"}
    world.settle({})
    world.run(world.scripts.forget("digits/green"))
    assert world.in_use("digits/blue") == {"tried"}
    assert world.in_use() == set()


def test_an_environment_is_in_use_until_its_crew_has_ended(world: World) -> None:
    world.serve(world.deployment())
    world.crews.may_stop.clear()
    world.settle({})
    assert world.in_use() == {"env"}
    world.crews.may_stop.set()
    world.rest()
    assert world.in_use() == set()


def test_the_last_lines_are_those_of_the_newest_crew(world: World) -> None:
    assert world.scripts.tail(NAME, 5) is None
    served = world.serve(world.deployment())
    assert world.scripts.tail(NAME, 5) == f"5 lines of {served}"
    ahead = world.ensure(world.deployment("2")).pool
    assert world.scripts.tail(NAME, 5) == f"5 lines of {ahead}"


def collector(*names: str) -> CollectorSpec:
    return CollectorSpec(source="s", collections=tuple(CollectionSpec(name=name, folder=name) for name in names))


def test_a_crew_that_collects_is_told_where_and_is_forgotten_when_it_has_ended(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    pool = world.serve(world.deployment(collector=collector("Inputs")))
    spec = world.crews.running[pool]
    assert world.sink.admitted == {"secret 0": (NAME, ["Inputs"])}
    assert spec.environment["AZUREML_MDC_HOST"] == "secret 0"
    file = Path(spec.environment["AZUREML_MDC_CONFIG_PATH"])
    assert json.loads(file.read_text())["collections"] == {"inputs": {"enabled": True, "sampleRatePercentage": 100}}
    # The sandbox that these crews are in has no network, and must not fail what the package reads at its start.
    assert file in spec.readable
    assert "the sandbox has no network" in caplog.text
    assert world.serve(world.deployment(collector=collector("inputs", "outputs"))) != pool
    assert world.sink.forgotten == ["secret 0"]
    world.settle({})
    assert world.sink.forgotten == ["secret 0", "secret 1"]


def test_a_crew_that_collects_and_fails_is_forgotten_and_one_that_does_not_is_never_known(world: World) -> None:
    world.ensure(world.deployment())
    assert world.sink.admitted == {}
    world.crews.failing = CrewFailed("WorkerEnded", "it ended")
    world.refusal(world.deployment(collector=collector("inputs")))
    assert world.sink.forgotten == ["secret 0"]
