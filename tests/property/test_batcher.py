"""The batcher as a whole, on a virtual clock: whatever comes, each request gets its own answer, once and in time."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtimes.batching.item import WorkItem
from runtimes.errors import DeadlineExceeded, ModelFailed, QueueWaitExceeded, RuntimeFault, TooLate, Unavailable
from runtimes.simulated import Behaviour
from runtimes.spec import BatchLimits
from tests.support.virtual import MS, World

POISON = -1.0
HANG = -2.0


@pytest.fixture(autouse=True, scope="module")
def _quiet() -> Iterator[None]:
    # Rude replies and hanging sessions are logged, which is tested elsewhere and slow a thousand times over.
    logging.disable(logging.ERROR)
    yield
    logging.disable(logging.NOTSET)


PROFILE = settings(max_examples=250, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


@dataclass(frozen=True)
class Send:
    """A request; times in milliseconds from now, 0 for none."""

    rows: int
    width: int
    within: int
    start_within: int
    row: float | None
    is_rude: bool


@dataclass(frozen=True)
class Cancel:
    which: int


@dataclass(frozen=True)
class Wait:
    us: int


@dataclass(frozen=True)
class Resize:
    instances: int


Event = Send | Cancel | Wait | Resize


@dataclass(frozen=True)
class Setting:
    kind: str
    instances: int
    rows_max: int
    items_max: int
    delay_ms: int
    run_us: int
    row_us: int
    batched: bool
    # How wrong the measured times are that it begins with; 0 for none.
    table_factor: float
    preferred: tuple[int, ...] = ()


@dataclass
class Story:
    """What a test sent and what became of it."""

    world: World
    setting: Setting
    accepted: list[WorkItem] = field(default_factory=list)
    refused: list[WorkItem] = field(default_factory=list)
    cancelled_at: dict[WorkItem, int] = field(default_factory=dict)
    odd: dict[WorkItem, float] = field(default_factory=dict)
    serial: int = 0
    most_instances: int = 0
    is_submitting: bool = False

    def act(self, event: Event) -> None:
        match event:
            case Send():
                self._send(event)
            case Cancel(which):
                self._cancel(which)
            case Wait(us):
                self.world.scheduler.advance(us * 1000)
                self._check_work_conserving()
            case Resize(instances):
                self.world.resize(instances)
                assert self.world.runtime.instances == (instances if self.setting.kind == "virtual" else 1)
                self.most_instances = max(self.most_instances, instances)
        self.check_conservation()

    def _send(self, send: Send) -> None:
        # Every row of every request is different, so a swapped row shows.
        first = self.serial + 1
        self.serial += max(send.rows, 1)
        rows = np.arange(first, first + send.rows, dtype=np.float32)
        x = np.repeat(rows[:, None], send.width, axis=1)
        if send.row is not None and send.rows:
            x[send.rows // 2] = send.row
        item = self.world.item(
            x,
            within_ns=send.within * MS,
            start_within_ns=send.start_within * MS,
            reply=self._rude_reply if send.is_rude else self._reply,
        )
        if send.row is not None and send.rows:
            self.odd[item] = send.row
        self.is_submitting = True
        try:
            self.world.submit(item)
            self.accepted.append(item)
        except RuntimeFault:
            self.refused.append(item)
        self.is_submitting = False

    def _cancel(self, which: int) -> None:
        if not self.accepted:
            return
        item = self.accepted[which % len(self.accepted)]
        if not item.done:
            self.cancelled_at[item] = self.world.scheduler.now_ns()
        self.world.runtime.cancel(item)
        self.world.runtime.cancel(item)

    def _reply(self, item: WorkItem) -> None:
        assert not self.is_submitting, "a reply was called from inside submit"
        self.world.record(item)

    def _rude_reply(self, item: WorkItem) -> None:
        self._reply(item)
        raise RuntimeError("a caller's reply raised")

    def check_conservation(self) -> None:
        status = self.world.runtime.status()
        ends = status.succeeded + status.failed + status.expired + status.cancelled + status.closed
        assert status.accepted == len(self.accepted) == ends + status.queued_items + status.in_flight_items
        assert status.refused == len(self.refused)
        assert status.cancelled == len(self.cancelled_at)
        assert 0 <= status.queued_items <= self.setting.items_max
        assert status.in_flight_items >= 0
        assert status.queued_rows >= 0
        assert 0 <= status.busy <= status.instances

    def _check_work_conserving(self) -> None:
        status = self.world.runtime.status()
        if self.setting.delay_ms == 0 and status.busy < status.instances:
            assert status.queued_items == 0, "an instance was idle while a request waited"

    def end(self) -> None:
        """Drain; a hanging instance may leave requests without a deadline, which close answers."""
        drained: list[int] = []
        self.world.runtime.drain(lambda: drained.append(1))
        self.world.scheduler.run_out()
        if not self.world.pool.hung:
            assert drained == [1]
        self.world.runtime.close()
        self.world.scheduler.run_out()
        assert drained == [1]
        self.check_conservation()
        status = self.world.runtime.status()
        assert status.queued_items == status.queued_rows == status.in_flight_items == 0


def check_every_item_has_its_one_end(story: Story) -> None:
    for item in story.refused:
        assert story.world.replied(item) == 0
    for item in story.accepted:
        assert item.done
        assert story.world.replied(item) == (0 if item in story.cancelled_at else 1)
        if item not in story.cancelled_at:
            check_the_end_is_right(story, item)


def check_the_end_is_right(story: Story, item: WorkItem) -> None:
    fault = story.world.fault(item)
    odd = story.odd.get(item)
    if fault is None:
        assert story.world.is_right(item)
        assert odd is None
        assert item.enqueued_ns <= item.started_ns <= item.finished_ns
        assert not 0 < item.deadline_ns <= item.finished_ns
    elif fault is ModelFailed:
        assert odd == POISON
    elif fault is DeadlineExceeded:
        assert item.deadline_ns
    elif fault is TooLate:
        assert item.finished_ns < item.deadline_ns
    elif fault is QueueWaitExceeded:
        assert item.start_by_ns
    else:
        assert fault is Unavailable
        assert story.world.pool.hung


def check_nobody_is_answered_late(story: Story) -> None:
    for when_ns, item in story.world.replies:
        if item.deadline_ns:
            assert when_ns <= item.deadline_ns + blocked_ns(story.setting)


def blocked_ns(setting: Setting) -> int:
    """How long inline runs may keep the loop from its timers: two batches, bisected to the last row."""
    if setting.kind != "inline":
        return 0
    rows = max(setting.rows_max, 12)
    return 2 * (2 * rows * setting.run_us + rows * rows * setting.row_us) * 1000


def runs_of(story: Story, item: WorkItem) -> list[int]:
    mine = set(item.inputs["x"][:, 0].tolist()) - {POISON, HANG}
    return [when_ns for when_ns, x in story.world.ran if mine & set(x[:, 0].tolist())]


def check_dead_work_never_runs(story: Story) -> None:
    for item in story.accepted:
        runs = runs_of(story, item)
        if item.deadline_ns:
            assert all(when_ns < item.deadline_ns for when_ns in runs)
        if item.start_by_ns and runs:
            assert runs[0] < item.start_by_ns
        if item in story.cancelled_at and story.setting.kind == "inline":
            assert all(when_ns <= story.cancelled_at[item] for when_ns in runs)


def check_order_inside_a_key(story: Story) -> None:
    for width in (1, 2):
        first = [
            min(runs)
            for item in story.accepted
            if item.rows and item.inputs["x"].shape[1] == width and (runs := runs_of(story, item))
        ]
        assert first == sorted(first)


def check_batches_keep_their_bounds(story: Story) -> None:
    setting = story.setting
    for _, x in story.world.ran:
        assert len(x) <= setting.rows_max or not setting.batched
    assert story.world.pool.most_outstanding <= 2 * max(setting.instances, story.most_instances)


def check_only_those_that_went_are_closed(story: Story) -> None:
    """Each instance that was let go has closed its session, and no other has."""
    world = story.world
    if not world.pool.hung and story.setting.kind == "virtual":
        assert sum(not session.is_closed for session in world.sessions) == world.runtime.instances


rows = st.integers(0, 3) | st.integers(0, 12)
sends = st.builds(
    Send,
    rows=rows,
    width=st.integers(1, 2),
    within=st.sampled_from([0, 0, 1, 3, 10, 40]),
    start_within=st.sampled_from([0, 0, 0, 1, 5]),
    row=st.none() | st.none() | st.sampled_from([POISON]),
    is_rude=st.sampled_from([False, False, False, True]),
)
hanging_sends = st.builds(
    Send,
    rows=st.integers(1, 7),
    width=st.integers(1, 2),
    within=st.sampled_from([0, 3, 10]),
    start_within=st.just(0),
    row=st.none() | st.none() | st.sampled_from([HANG]),
    is_rude=st.just(False),
)
others = st.builds(Cancel, which=st.integers(0, 50)) | st.builds(Wait, us=st.sampled_from([0, 1, 200, 1000, 5000]))
resizes = st.builds(Resize, instances=st.integers(1, 4))
inline_settings = st.builds(
    Setting,
    kind=st.just("inline"),
    instances=st.just(1),
    rows_max=st.integers(1, 6),
    items_max=st.sampled_from([2, 50]),
    delay_ms=st.sampled_from([0, 0, 2]),
    run_us=st.sampled_from([0, 300, 2000]),
    row_us=st.sampled_from([0, 100]),
    batched=st.sampled_from([True, True, False]),
    table_factor=st.sampled_from([0, 0.001, 1, 1000]),
    preferred=st.sampled_from([(), (), (2,), (2, 4)]),
)
instance_settings = st.builds(
    Setting,
    kind=st.just("virtual"),
    instances=st.integers(1, 3),
    rows_max=st.integers(1, 6),
    items_max=st.sampled_from([2, 50]),
    delay_ms=st.sampled_from([0, 0, 2]),
    run_us=st.sampled_from([0, 300, 2000]),
    row_us=st.sampled_from([0, 100]),
    batched=st.sampled_from([True, True, False]),
    table_factor=st.sampled_from([0, 0.001, 1, 1000]),
    preferred=st.sampled_from([(), (), (2,), (2, 4)]),
)


def measured(setting: Setting) -> dict[int, int] | None:
    if not setting.table_factor:
        return None
    return {rows: round(setting.table_factor * 1000 * (setting.run_us + rows * setting.row_us)) for rows in (1, 2, 4)}


def play(setting: Setting, events: list[Event]) -> Story:
    world = World(
        kind=setting.kind,
        instances=setting.instances,
        behaviour=Behaviour(run_ns=setting.run_us * 1000, row_ns=setting.row_us * 1000, poison=POISON, hang_on=HANG),
        limits=BatchLimits(
            batch_rows_max=setting.rows_max,
            queue_delay_ns=setting.delay_ms * MS,
            queue_items_max=setting.items_max,
            preferred=setting.preferred,
        ),
        batched=setting.batched,
        run_times=measured(setting),
    )
    story = Story(world, setting)
    for event in events:
        story.act(event)
    story.end()
    return story


def check_all(story: Story) -> None:
    check_every_item_has_its_one_end(story)
    check_nobody_is_answered_late(story)
    check_dead_work_never_runs(story)
    check_order_inside_a_key(story)
    check_batches_keep_their_bounds(story)
    check_only_those_that_went_are_closed(story)


@PROFILE
@given(setting=inline_settings, events=st.lists(sends | sends | others, max_size=30))
def test_inline_every_request_gets_its_own_answer_once_and_in_time(setting: Setting, events: list[Event]) -> None:
    check_all(play(setting, events))


@PROFILE
@given(setting=instance_settings, events=st.lists(sends | sends | others, max_size=30))
def test_on_instances_every_request_gets_its_own_answer_once_and_in_time(
    setting: Setting, events: list[Event]
) -> None:
    check_all(play(setting, events))


@PROFILE
@given(setting=instance_settings, events=st.lists(hanging_sends | others, max_size=25))
def test_a_hanging_instance_costs_only_the_time_until_the_deadlines(setting: Setting, events: list[Event]) -> None:
    check_all(play(setting, events))


@PROFILE
@given(
    setting=instance_settings | instance_settings | inline_settings,
    events=st.lists(sends | sends | others | resizes, max_size=40),
)
def test_instances_that_come_and_go_lose_and_double_nothing(setting: Setting, events: list[Event]) -> None:
    check_all(play(setting, events))


@PROFILE
@given(setting=instance_settings, events=st.lists(hanging_sends | others | resizes, max_size=25))
def test_a_hanging_instance_among_those_that_come_and_go_costs_no_more(setting: Setting, events: list[Event]) -> None:
    check_all(play(setting, events))
