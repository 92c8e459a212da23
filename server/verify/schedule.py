"""A random schedule of faults: the same seed makes the same choice. Pure."""

from __future__ import annotations

import random
from collections.abc import Sequence

from server.verify.faults import ALL, Fault
from server.verify.run import Step

SHORTEST, LONGEST = 1.0, 12.0  # seconds that a fault lasts
PAUSES = (0.0, 1.0, 12.0)  # seconds between two faults: at once, before all has healed, and after it


def make_schedule(seed: int, seconds: float, faults: Sequence[Fault] = ALL) -> list[Step]:
    """Faults for about this long. Each is drawn once before any is drawn again."""
    dice = random.Random(seed)  # noqa: S311 - to be repeated, not to be secret
    steps: list[Step] = []
    deck: list[Fault] = []
    left = seconds
    while left > 0:
        if not deck:
            deck = dice.sample(list(faults), len(faults))
        step = Step(deck.pop(), round(dice.uniform(SHORTEST, LONGEST) ** 2 / LONGEST + 0.5, 1), dice.choice(PAUSES))
        steps.append(step)
        left -= step.seconds + step.after + (step.fault.dependency == "replica") * 2
    return steps
