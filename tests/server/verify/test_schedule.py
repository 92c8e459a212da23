"""The schedule: random, and the same for the same seed."""

from server.verify.faults import ALL
from server.verify.schedule import make_schedule


def test_the_same_seed_makes_the_same_choice_and_another_seed_another():
    assert make_schedule(1, 600) == make_schedule(1, 600)
    assert make_schedule(1, 600) != make_schedule(2, 600)


def test_a_schedule_fills_its_time_and_does_every_fault_before_any_twice():
    steps = make_schedule(3, 600)
    assert sum(step.seconds + step.after for step in steps) + 2 * len(steps) > 590
    names = [step.fault.name for step in steps]
    assert sorted(names[: len(ALL)]) == sorted(fault.name for fault in ALL)
