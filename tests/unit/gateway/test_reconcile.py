"""A change in two phases, with scorers that do as they are told, fail, or die."""

from __future__ import annotations

import asyncio

import pytest

from gateway.channel import Loaded, Prepared
from gateway.controlplane.reconcile import Applied, ChangeRefused, change
from gateway.snapshot import AuthSpec, DeploymentSpec, EndpointSpec, LearnedByName, SnapshotSpec
from runtimes import Learned, RuntimeSpec


def snapshot(*deployments: str, revision: int = 2) -> SnapshotSpec:
    specs = {
        name: DeploymentSpec(
            name=name,
            runtime=RuntimeSpec(path=f"/{name}.onnx", sha256=name),
            request_timeout_ns=1,
            queue_wait_ns=0,
            pending_max=0,
            seat=-1,
            body_bytes_max=1,
        )
        for name in deployments
    }
    endpoint = EndpointSpec(name="e", auth=AuthSpec(mode="key"), deployments=specs)
    return SnapshotSpec(revision=revision, endpoints={"e": endpoint})


class FakeScorer:
    """Loads everything but `broken`; dies at `dies_at`."""

    def __init__(self, broken: dict[str, str] | None = None, dies_at: str = "") -> None:
        self.broken = broken or {}
        self.dies_at = dies_at
        self.story: list[str] = []
        self.told: LearnedByName = {}

    async def prepare(self, spec: SnapshotSpec, learned: LearnedByName) -> Prepared:
        self.story.append("prepare")
        self.told = dict(learned)
        await asyncio.sleep(0)
        if self.dies_at == "prepare":
            raise RuntimeError("died")
        names = [f"e/{name}" for name in spec.endpoints["e"].deployments]
        good = [name for name in names if name not in self.broken]
        return Prepared(
            revision=spec.revision,
            learned={name: Learned(batched=True, reason="proven") for name in good},
            failures={name: self.broken[name] for name in names if name in self.broken},
            loaded={name: Loaded(load_s=0.1, provider="cpu", sha256="x") for name in good},
        )

    async def commit(self, revision: int) -> None:
        self.story.append(f"commit {revision}")

    async def abort(self, revision: int) -> None:
        self.story.append(f"abort {revision}")


def carry_out(
    scorers: list[FakeScorer], spec: SnapshotSpec, tolerated: dict[str, str] | None = None, strict: bool = True
) -> Applied:
    return asyncio.run(change(scorers, spec, {}, (tolerated or {}) if strict else None))


def test_every_scorer_commits_when_all_are_ready_and_followers_learn_from_the_first() -> None:
    scorers = [FakeScorer(), FakeScorer(), FakeScorer()]
    applied = carry_out(scorers, snapshot("blue"))
    assert [scorer.story for scorer in scorers] == [["prepare", "commit 2"]] * 3
    assert scorers[0].told == {}
    assert scorers[1].told == scorers[2].told == applied.learned
    assert set(applied.loaded) == {"e/blue"}


@pytest.mark.parametrize("which", [0, 1])
def test_one_failing_scorer_fails_the_change_everywhere_and_says_why(which: int) -> None:
    scorers = [FakeScorer(), FakeScorer()]
    scorers[which].broken = {"e/blue": "the file is empty"}
    with pytest.raises(ChangeRefused, match="deployment e/blue: the file is empty"):
        carry_out(scorers, snapshot("blue", "green"))
    assert all(scorer.story[-1] == "abort 2" for scorer in scorers)
    assert not any("commit" in step for scorer in scorers for step in scorer.story)


def test_a_scorer_that_dies_while_it_prepares_fails_the_change() -> None:
    scorers = [FakeScorer(), FakeScorer(dies_at="prepare")]
    with pytest.raises(RuntimeError, match="died"):
        carry_out(scorers, snapshot("blue"))
    assert scorers[0].story == ["prepare", "abort 2"]


def test_what_failed_before_and_was_not_touched_does_not_hold_up_other_changes() -> None:
    scorers = [FakeScorer(broken={"e/blue": "no such file"})]
    applied = carry_out(scorers, snapshot("blue", "green"), tolerated={"e/blue": "no such file"})
    assert applied.failures == {"e/blue": "no such file"}
    assert set(applied.loaded) == {"e/green"}


def test_a_gateway_starts_with_what_it_can_load() -> None:
    scorers = [FakeScorer(broken={"e/blue": "no such file"})]
    assert carry_out(scorers, snapshot("blue", "green"), strict=False).failures == {"e/blue": "no such file"}
    assert scorers[0].story == ["prepare", "commit 2"]


def test_a_gateway_that_can_load_nothing_does_not_start() -> None:
    scorers = [FakeScorer(broken={"e/blue": "no such file", "e/green": "corrupt"})]
    with pytest.raises(ChangeRefused) as caught:
        carry_out(scorers, snapshot("blue", "green"), strict=False)
    assert caught.value.reasons == ("deployment e/blue: no such file", "deployment e/green: corrupt")


def test_an_empty_gateway_starts() -> None:
    assert carry_out([FakeScorer()], snapshot(), strict=False).loaded == {}
