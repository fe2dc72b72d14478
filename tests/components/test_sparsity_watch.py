"""Safe stops: what has failed is stopped, what may still end well is not."""

from __future__ import annotations

from cofi_tune.components.sparsity_watch import SparsityWatch
from cofi_tune.records import Stopped

WARMUP, STEPS, CLOSING = 200, 1000, 60.0


def end(expected: float | list[float], dead: bool = False, target: float = 0.8) -> tuple[str, int] | None:
    """Reason and step at which a run with these sparsities, reported every 20 steps, is stopped."""
    watch = SparsityWatch()
    for number, step in enumerate(range(20, STEPS + 1, 20)):
        now = expected if isinstance(expected, float) else expected[min(number, len(expected) - 1)]
        due = target * min(1, step / WARMUP)
        try:
            watch.check(now, due, dead, step, WARMUP, STEPS, CLOSING)
        except Stopped as stopped:
            return stopped.reason, step
    return None


def test_a_run_on_its_schedule_is_left_alone() -> None:
    assert end([0.08 * n for n in range(10)] + [0.8]) is None
    assert end(0.76) is None
    assert end(0.82) is None


def test_behind_after_the_ramp_and_the_gates_lag() -> None:
    assert end(0.74) == ("behind_schedule", 320)
    assert end([0.0] * 15 + [0.8]) is None, "late, but within the lag"
    assert end([0.8] * 30 + [0.5]) == ("behind_schedule", 620)


def test_beyond_the_target_for_long() -> None:
    assert end(0.95) == ("overshoot", 620)
    assert end([0.95] * 25 + [0.8] + [0.95] * 15 + [0.8]) is None, "twice, but not for long"


def test_nothing_left_for_long() -> None:
    assert end(0.8, dead=True) == ("all_sublayers_dead", 620)


def test_short_runs_have_their_time() -> None:
    watch = SparsityWatch()
    for step in range(0, 60, 3):
        watch.check(0.5, 0.8, True, step, 11, 60, 4.0)
