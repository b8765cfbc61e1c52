"""Measure several ways in turn, so that a machine's changing speed meets all of them alike."""

import time
from collections.abc import Callable, Mapping
from typing import TypeVar

T = TypeVar("T")


def in_turn(
    ways: Mapping[str, Callable[[], T]],
    rounds: int,
    after_each: Callable[[str], None] = lambda name: None,
) -> dict[str, list[T]]:
    """Measure every way once a round.

    Args:
        ways: What to measure, by name; each call is one measurement.
        rounds: How often.
        after_each: Called with the name of what was just measured.

    Returns:
        The measurements of each way, in the order of the rounds.
    """
    measured: dict[str, list[T]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            measured[name].append(way())
            after_each(name)
    return measured


def seconds_per_call(call: Callable[[], object], least: float) -> float:
    """Repeat a call for at least `least` seconds and return the seconds of one."""
    count, started = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - started) < least:
        call()
        count += 1
    return elapsed / count
