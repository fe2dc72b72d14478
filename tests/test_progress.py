"""What a person sees of a running search: which trial goes on from which, and what became of it."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from cofi_tune.messages import Asked, Link, Outcome
from cofi_tune.progress import Foreign, Lines, LiveTable
from cofi_tune.records import Progress

FIRST = Asked("s-0000", {"layer_mix": 0.5}, {}, link=Link("s-0000", None, 1, (0.6, 0.75, 0.9)))
SECOND = Asked("s-0001", {"layer_mix": 0.5}, {}, link=Link("s-0000", "s-0000", 2, (0.6, 0.75, 0.9)))
LAST = Asked("s-0002", {"layer_mix": 0.5}, {}, link=Link("s-0000", "s-0001", 3, (0.6, 0.75, 0.9)))
PLAIN = Asked("s-0003", {"layer_mix": 0.5}, {})
MISSED = Outcome("pruned", "target_not_reached", "too few steps")
STOPPED = Outcome("fail", "interrupted", "the search was stopped")


def console() -> Console:
    return Console(file=io.StringIO(), width=120)


def said(by: Lines) -> list[str]:
    assert isinstance(by.console.file, io.StringIO)
    return by.console.file.getvalue().splitlines()


def test_links_say_where_they_stand() -> None:
    lines = Lines(console(), "s")
    for asked in (FIRST, SECOND, PLAIN):
        lines.started(asked)
    first, second, plain = said(lines)
    assert first.endswith("trial 0000 starts: link 1 of 3, target 0.6; layer_mix 0.5")
    assert second.endswith("trial 0001 starts: link 2 of 3 after 0000, target 0.75; layer_mix 0.5")
    assert plain.endswith("trial 0003 starts: layer_mix 0.5")


@pytest.mark.parametrize("kind", [Lines, LiveTable])
@pytest.mark.parametrize(
    ("asked", "outcome", "ends"),
    [(SECOND, MISSED, True), (LAST, MISSED, False), (PLAIN, MISSED, False), (SECOND, STOPPED, False)],
    ids=["midway", "last", "plain", "goes on"],
)
def test_a_link_without_a_model_says_that_its_chain_ends(
    kind: type[Lines], asked: Asked, outcome: Outcome, ends: bool
) -> None:
    watch = kind(console(), "s")
    watch.started(asked)
    watch.ended(asked.trial_id, outcome)
    assert ("its chain ends here" in said(watch)[-1]) is ends


def test_nobody_waits_for_a_late_report() -> None:
    lines, table = Lines(console(), "s"), LiveTable(console(), "s")
    for watch in (lines, table):
        for step, late in ((3, False), (2, True)):
            watch.heard("s-0000", Progress(step, 9, "prune", {"loss": 0.5}, 1e-3, 1.0), late=late)
    [line] = said(lines)
    assert "3/9" in line
    assert table.rows["s-0000"].progress == lines.rows["s-0000"].progress
    assert lines.rows["s-0000"].progress.step == 3


def test_the_table_names_the_parent() -> None:
    table = LiveTable(console(), "s")
    for asked in (FIRST, SECOND):
        table.started(asked)
    table.console.print(table._render())
    assert any(line.startswith("0001 after 0000") for line in said(table))


def test_what_libraries_print_is_said_once_and_counters_never() -> None:
    lines = Lines(console(), "s")
    foreign = Foreign(lines)
    foreign.write("(raylet) a node is dead. This can happen when\n[state-dump] Work.Handle - 1 total\n")
    foreign.write("\x1b[36m(raylet) a node is dead\x1b[0m. Again\n")
    [line] = said(lines)
    assert line.endswith("(raylet) a node is dead")


def test_a_warning_is_said_once_unless_it_is_of_use_again() -> None:
    lines = Lines(console(), "s")
    for trial_id in ("s-0000", "s-0001"):
        lines.warned(trial_id, "slow")
        lines.warned(trial_id, "it resumes", again=True)
    words = [line.split(" ", 1)[1] for line in said(lines)]
    assert words == ["trial 0000: slow", "trial 0000: it resumes", "trial 0001: it resumes"]
