"""How many instances a deployment gets, look by look."""

from __future__ import annotations

from gateway.controlplane.autoscale import LOOKS_BELOW, ScaleState, Utilisation, decide, utilisation
from gateway.resources import Scale
from gateway.telemetry.record import ScorerRecord
from gateway.telemetry.totals import add

SCALE = Scale(min_instances=1, max_instances=10, target_percent=70, polling_interval_s=1.0)


def seen(instances: int, busy: int, waiting: int = 0) -> Utilisation:
    return Utilisation(instances=instances, busy=busy, waiting=waiting)


class Looks:
    """A deployment that is looked at once an interval."""

    def __init__(self, instances: int, scale: Scale = SCALE) -> None:
        self.scale = scale
        self.state = ScaleState(instances=instances)
        self.now = 100.0
        self.why = ""

    def look(self, busy: int, waiting: int = 0) -> int:
        self.now += self.scale.polling_interval_s
        look = seen(self.state.instances, busy, waiting)
        instances, self.state, self.why = decide(self.scale, self.state, look, self.now)
        assert instances == self.state.instances
        return instances


def test_above_the_target_the_load_gets_what_it_needs_at_once() -> None:
    looks = Looks(2)
    # Two busy and three waiting make 250 %; at 70 % that is a need of 8.
    assert looks.look(2, 3) == 8
    assert looks.why == ("2 instances become 8: utilisation is 250 % (2 of 2 busy, 3 runs waiting), the target 70 %")


def test_an_instance_of_several_sessions_is_as_many_of_what_is_busy() -> None:
    state = ScaleState(instances=2)
    assert decide(SCALE, state, seen(8, 5), 100.0, 4)[0] == 2
    # Eight busy sessions and seven runs that wait need 22 at 70 %: six instances of four.
    assert decide(SCALE, state, seen(8, 8, 7), 100.0, 4)[0] == 6


def test_never_more_than_the_most_and_never_fewer_than_the_fewest() -> None:
    assert Looks(2).look(2, 500) == 10
    looks = Looks(3, Scale(min_instances=2, max_instances=10))
    for _ in range(LOOKS_BELOW):
        looks.look(0)
    assert looks.state.instances == 2


def test_below_the_target_instances_go_after_many_looks_and_the_busiest_of_them_decides() -> None:
    looks = Looks(10)
    for number in range(LOOKS_BELOW - 1):
        assert looks.look(2 if number == 7 else 0) == 10
        assert looks.why == ""
    assert looks.look(0) == 3
    assert looks.why == (
        "10 instances become 3: utilisation is 0 % (0 of 10 busy, 0 runs waiting), the target 70 %, "
        "and 20 looks needed no more than 3"
    )


def test_one_look_that_needs_them_all_begins_the_wait_anew() -> None:
    looks = Looks(10)
    for _ in range(LOOKS_BELOW - 1):
        looks.look(0)
    assert looks.look(7) == 10
    for _ in range(LOOKS_BELOW - 1):
        assert looks.look(0) == 10
    assert looks.look(0) == 1


def test_between_two_looks_nothing_is_decided() -> None:
    _, state, _ = decide(SCALE, ScaleState(instances=2), seen(2, 0), 100.0)
    assert decide(SCALE, state, seen(2, 2, 9), 100.9) == (2, state, "")
    assert decide(SCALE, state, seen(2, 2, 9), 101.0)[0] == 10


def test_a_clock_that_jumps_back_stops_nothing() -> None:
    state = ScaleState(instances=2, looked_at=1000.0)
    assert decide(SCALE, state, seen(2, 2, 9), 5.0)[0] == 10


def test_where_nobody_reports_nothing_changes() -> None:
    looks = Looks(5)
    for _ in range(3 * LOOKS_BELOW):
        _, looks.state, why = decide(SCALE, looks.state, seen(0, 0), looks.now)
        looks.now += 1
        assert (looks.state.instances, looks.state.below, why) == (5, 0, "")


def test_new_bounds_count_at_once() -> None:
    state = ScaleState(instances=9, looked_at=100.0)
    scale = Scale(min_instances=1, max_instances=4)
    instances, after, why = decide(scale, state, seen(9, 9), 100.1)
    assert (instances, after.instances) == (4, 4)
    assert why == "9 instances become 4: from 1 to 4 instances are allowed"
    assert decide(Scale(min_instances=2, max_instances=4), ScaleState(instances=1), seen(1, 0), 0.0)[2].startswith(
        "1 instance become 2"
    )


def test_utilisation_is_summed_over_scorers_and_nothing_is_seen_of_what_is_not_there() -> None:
    records = [ScorerRecord(), ScorerRecord()]
    for busy, record in enumerate(records):
        blue = record.deployment("digits", "blue")
        blue.instances, blue.busy, blue.waiting_runs = 2, busy, 3
    totals = add(records[0].snapshot(), records[1].snapshot())
    assert utilisation(totals, "digits", "blue") == seen(4, 1, 6)
    assert utilisation(totals, "digits", "blue").percent == 175
    assert utilisation(totals, "digits", "green") == utilisation(totals, "letters", "blue") == seen(0, 0)
