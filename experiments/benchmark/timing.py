"""Alternating measurement: whatever else the machine does falls on every contestant alike."""

import random
import statistics
import time
from collections.abc import Callable, Mapping

# Thread pools of other libraries spin for some milliseconds after their last task.
PAUSE_SECONDS = 0.01


def alternate(
    contestants: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    seconds: float = 0.0,
    at_most: int = 1000,
    warm_ups: int = 2,
) -> dict[str, list[float]]:
    """Seconds of each call, all contestants once a round, in an order drawn anew for each round.

    Args:
      contestants: functions by name; a call must not return before its result is there.
      rounds: how many rounds at least.
      seconds: go on until a round more would take longer than this in all.
      at_most: how many rounds at most.
      warm_ups: calls of each before the first that counts.

    Returns:
      For every contestant a list with one entry a round.
    """
    for call in contestants.values():
        for _ in range(warm_ups):
            call()
    found = {name: [] for name in contestants}
    # Drawn, not reversed: in fixed places some contestants had always the same one before them.
    order = random.Random(0)
    started = time.perf_counter()
    for number in range(at_most):
        passed = time.perf_counter() - started
        if number >= rounds and passed + passed / number > seconds:
            break
        for name in order.sample(list(contestants), len(contestants)):
            time.sleep(PAUSE_SECONDS)
            before = time.perf_counter()
            contestants[name]()
            found[name].append(time.perf_counter() - before)
    return found


def ratio(numerator: list[float], denominator: list[float]) -> float:
    """Median over the rounds of the ratio within a round."""
    return statistics.median(a / b for a, b in zip(numerator, denominator, strict=True))
