"""A change in two phases, and a load ahead of one, with scorers that do as they are told, fail, or die."""

from __future__ import annotations

import asyncio

import pytest

from gateway.channel import LoadDone, Loaded, Prepared, RemoteFailed
from gateway.controlplane.reconcile import Applied, ChangeRefused, LoadRefused, change, load, unload
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
    """Loads everything but `broken`; dies at `dies_at`. A load waits for `may_load`, where there is one."""

    is_up = True

    def __init__(self, broken: dict[str, str] | None = None, dies_at: str = "") -> None:
        self.broken = broken or {}
        self.dies_at = dies_at
        self.story: list[str] = []
        self.told: LearnedByName = {}
        self.may_load: asyncio.Event | None = None

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

    async def load(self, name: str, deployment: DeploymentSpec, learned: Learned | None) -> LoadDone | None:
        self.story.append(f"load {name}" + (f" as {learned.reason}" if learned else ""))
        await asyncio.sleep(0)
        if self.may_load is not None:
            await self.may_load.wait()
        if self.dies_at == "load":
            return None
        if name in self.broken:
            raise RemoteFailed(self.broken[name])
        self.story.append("loaded")
        return LoadDone(
            learned=learned or Learned(batched=True, reason="proven"),
            loaded=Loaded(load_s=0.1, provider="cpu", sha256="x"),
        )

    async def unload(self, name: str) -> None:
        self.story.append(f"unload {name}")
        if self.dies_at == "unload":
            raise RuntimeError("died")

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


# Loading ahead of a change.

BLUE = snapshot("blue").endpoints["e"].deployments["blue"]
PROVEN = Learned(batched=True, reason="proven")


def make_ready(scorers: list[FakeScorer], learned: Learned | None = None) -> Learned:
    return asyncio.run(load(scorers, "e/blue", BLUE, learned))[0]


def test_the_first_scorer_proves_and_the_others_follow_with_what_it_learned() -> None:
    scorers = [FakeScorer(), FakeScorer(), FakeScorer()]
    assert make_ready(scorers) == PROVEN
    assert scorers[0].story == ["load e/blue", "loaded"]
    assert scorers[1].story == scorers[2].story == ["load e/blue as proven", "loaded"]


def test_what_is_known_is_proven_by_nobody() -> None:
    scorers = [FakeScorer(), FakeScorer()]
    make_ready(scorers, Learned(batched=False, reason="known"))
    assert [scorer.story[0] for scorer in scorers] == ["load e/blue as known"] * 2


@pytest.mark.parametrize("which", [0, 1])
def test_a_load_that_fails_says_why_and_is_held_aside_nowhere(which: int) -> None:
    scorers = [FakeScorer(), FakeScorer()]
    scorers[which].broken = {"e/blue": "the file is empty"}
    with pytest.raises(LoadRefused, match=r"^the file is empty$") as caught:
        make_ready(scorers)
    assert not caught.value.is_scorer_lost
    assert all(scorer.story[-1] == "unload e/blue" for scorer in scorers)


def test_a_model_that_ends_the_scorer_that_proves_it_is_not_tried_on_the_next() -> None:
    scorers = [FakeScorer(dies_at="load"), FakeScorer()]
    with pytest.raises(LoadRefused, match="ended before it was ready") as caught:
        make_ready(scorers)
    assert caught.value.is_scorer_lost
    assert scorers[1].story == ["unload e/blue"]


def test_a_scorer_that_dies_while_it_follows_is_left_out() -> None:
    scorers = [FakeScorer(), FakeScorer(dies_at="load"), FakeScorer()]
    assert make_ready(scorers) == PROVEN
    assert [scorer.story[-1] for scorer in scorers] == ["loaded", "load e/blue as proven", "loaded"]


class FakeProver:
    """Proves everything, or says what is wrong; None for one that dies."""

    def __init__(self, answer: LoadDone | str | None) -> None:
        self.answer = answer
        self.asked: list[str] = []

    async def prove(self, name: str, deployment: DeploymentSpec) -> LoadDone | None:
        self.asked.append(name)
        if isinstance(self.answer, str):
            raise RemoteFailed(self.answer)
        return self.answer


APART = LoadDone(
    learned=Learned(batched=True, reason="proven apart"), loaded=Loaded(load_s=2.0, provider="cpu", sha256="x")
)


def test_what_a_prover_found_out_is_taken_by_every_scorer_and_counts_in_the_time_of_the_load() -> None:
    scorers, prover = [FakeScorer(), FakeScorer()], FakeProver(APART)
    learned, loaded = asyncio.run(load(scorers, "e/blue", BLUE, None, prover))
    assert learned == APART.learned
    assert loaded.load_s == pytest.approx(2.1)
    assert [scorer.story for scorer in scorers] == [["load e/blue as proven apart", "loaded"]] * 2
    asyncio.run(load(scorers, "e/blue", BLUE, PROVEN, prover))
    assert prover.asked == ["e/blue"]


@pytest.mark.parametrize(
    ("answer", "reason", "is_lost"),
    [("the file is empty", "the file is empty", False), (None, "ended before it was through", True)],
)
def test_a_model_that_a_prover_refuses_or_that_ends_it_comes_to_no_scorer(
    answer: str | None, reason: str, is_lost: bool
) -> None:
    scorers = [FakeScorer(), FakeScorer()]
    with pytest.raises(LoadRefused, match=reason) as caught:
        asyncio.run(load(scorers, "e/blue", BLUE, None, FakeProver(answer)))
    assert caught.value.is_scorer_lost is is_lost
    assert [scorer.story for scorer in scorers] == [["unload e/blue"]] * 2


def test_no_more_than_half_of_the_scorers_follow_at_once() -> None:
    scorers = [FakeScorer() for _ in range(5)]

    async def story() -> None:
        may = asyncio.Event()
        for scorer in scorers[1:]:
            scorer.may_load = may
        loading = asyncio.create_task(load(scorers, "e/blue", BLUE, None))
        while sum(bool(scorer.story) for scorer in scorers[1:]) < 2:
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert [bool(scorer.story) for scorer in scorers[1:]] == [True, True, False, False]
        may.set()
        await loading

    asyncio.run(story())
    assert all(scorer.story[-1] == "loaded" for scorer in scorers)


def test_a_scorer_that_is_down_is_not_asked() -> None:
    scorers = [FakeScorer(), FakeScorer()]
    scorers[0].is_up = False
    make_ready(scorers)
    assert scorers[0].story == []
    scorers[1].is_up = False
    with pytest.raises(LoadRefused, match="no scorer is running"):
        make_ready(scorers)


@pytest.mark.parametrize("waits_at", [0, 1])
def test_a_load_that_is_cancelled_is_given_up_everywhere(waits_at: int) -> None:
    scorers = [FakeScorer(), FakeScorer(), FakeScorer(dies_at="unload")]

    async def story() -> None:
        scorers[waits_at].may_load = asyncio.Event()
        loading = asyncio.create_task(load(scorers, "e/blue", BLUE, None))
        while not scorers[waits_at].story:
            await asyncio.sleep(0)
        loading.cancel()
        await asyncio.gather(loading, return_exceptions=True)
        assert loading.cancelled()

    asyncio.run(story())
    assert all(scorer.story[-1] == "unload e/blue" for scorer in scorers)


def test_a_load_runs_beside_a_change_and_beside_another_load() -> None:
    scorers = [FakeScorer(), FakeScorer()]

    async def story() -> None:
        scorers[0].may_load = asyncio.Event()
        loads = [asyncio.create_task(load(scorers, name, BLUE, None)) for name in ("e/blue", "e/red")]
        await change(scorers, snapshot("green"), {}, {})
        assert sorted(scorers[0].story) == ["commit 2", "load e/blue", "load e/red", "prepare"]
        scorers[0].may_load.set()
        await asyncio.gather(*loads)

    asyncio.run(story())
    assert sorted(scorers[1].story[-2:]) == ["loaded", "loaded"]


def test_what_is_held_aside_can_be_given_up() -> None:
    scorers = [FakeScorer(), FakeScorer(dies_at="unload")]
    asyncio.run(unload(scorers, "e/blue"))
    assert [scorer.story for scorer in scorers] == [["unload e/blue"]] * 2
