"""Chains of targets in a study: which links there are, once each; what samplers and budgets see of them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

import search_spaces
from cofi_tune import chains, checkpoint, optuna_study
from cofi_tune import study as study_module
from cofi_tune.budget import Budget
from cofi_tune.interruption import Interruption
from cofi_tune.messages import KEY, Asked, Link, Message, OpenLinks, Outcome, encode
from cofi_tune.optuna_study import OtherPurpose, link_of
from cofi_tune.proposals import Proposals
from cofi_tune.tasks.grammar import TASK
from cofi_tune.tidy import Tidy
from cofi_tune.worker import Job

CHAIN = (0.5, 0.7, 0.9)
ONE_AFTER_ANOTHER = [
    (None, CHAIN[:1]),
    (0, CHAIN[:2]),
    (1, CHAIN),
    (None, CHAIN[:1]),
    (3, CHAIN[:2]),
    (4, CHAIN),
    (None, CHAIN[:1]),
]
"""Number of the parent, and targets, of each trial."""
Measure = Callable[[Job], Outcome | str]


class Search:
    """A study's trials and nothing else of it: neither Ray, nor training, nor MLflow."""

    def __init__(self, directory: Path, stand_in: Any, **changes: Any) -> None:
        self.directory, self.measure, self.changes = directory, stand_in.measure, changes
        self.make = stand_in.module.config
        self.jobs: list[Job] = []
        self.ended_by: str | None = None

    def proposals(self, **changes: Any) -> Proposals:
        values = {"chain": CHAIN, "sampler": "random", **self.changes, **changes}
        config = self.make(self.directory, **values)
        study = optuna_study.open_study(config.storage, config.name, {"task": "signs"})
        unfinished, done = optuna_study.settle(study), optuna_study.finished(study)
        tidy = Tidy(config.directory / "trials")
        for one in done:
            tidy.started(one.asked)
            tidy.ended(one.asked.trial_id, one.outcome)
        budget = Budget(config.trials - len(done), total_trials=config.trials)
        data: Any = SimpleNamespace(directory=self.directory)
        stopper = Interruption(self.directory / ".stop", lambda text: None)
        return study_module._proposals(
            config, study, TASK, data, self.directory, "alone", budget, stopper, [tidy], unfinished
        )

    def run(self, measure: Measure | None = None, **changes: Any) -> None:
        """Until there is nothing left to propose, or a trial is "stopped"."""
        proposals = self.proposals(**changes)
        for turn in itertools.count():
            asked = proposals.suggest(str(turn))
            if not isinstance(asked, dict):
                break
            self.jobs.append(asked["job"])
            outcome = (measure or self.measure)(asked["job"])
            if outcome == "stopped":
                proposals.leave("stopped")
                break
            assert isinstance(outcome, Outcome)
            proposals.on_trial_complete(str(turn), {KEY: encode(Message(outcome))})
        self.ended_by = proposals.ended_by

    @property
    def trials(self) -> list[optuna.trial.FrozenTrial]:
        url = f"sqlite:///{self.directory}/optuna.db"
        return optuna.load_study(study_name="simulated", storage=url).trials

    def links(self) -> list[tuple[int | None, tuple[float, ...] | None]]:
        """As `ONE_AFTER_ANOTHER`."""
        found: list[tuple[int | None, tuple[float, ...] | None]] = []
        for link in map(link_of, self.trials):
            parent = int(link.parent[-4:]) if link and link.parent else None
            found.append((parent, link.targets if link else None))
        return found


@pytest.fixture
def search(tmp_path: Path, stand_in: Any) -> Search:
    return Search(tmp_path, stand_in)


def test_each_proposal_is_followed_by_its_links_which_count_as_trials(search: Search) -> None:
    search.run(chain_epochs=0.25, epochs=8.0, trials=7)
    assert search.links() == ONE_AFTER_ANOTHER
    assert search.ended_by == "--trials 7"
    jobs = search.jobs
    first, second, third = jobs[:3]
    assert [job.trial.options["target_sparsity"] for job in jobs] == [*CHAIN, *CHAIN, 0.5]
    assert [job.trial.reached for job in jobs[:3]] == [(), CHAIN[:1], CHAIN[:2]]
    assert [job.trial.epochs for job in jobs[:3]] == [8.0, 2.0, 2.0]
    assert [job.setup.parent for job in jobs[:3]] == [None, first.setup.output, second.setup.output]
    assert [job.setup.hands_on for job in jobs[:3]] == [True, True, False]
    alike = {"epochs", "options", "reached"}
    assert third.trial.model_dump(exclude=alike) == first.trial.model_dump(exclude=alike)
    again = [trial.user_attrs["reproduce"] for trial in search.trials[:3]]
    assert "--target-sparsity 0.5 --epochs 8.0" in again[0]
    assert "--chain 0.5,0.7,0.9 --chain-epochs 0.25 --epochs 8.0" in again[2]


@pytest.mark.parametrize(
    "sampler", ["tpe", *(pytest.param(name, marks=pytest.mark.long) for name in ("nsga2", "gp", "random"))]
)
def test_samplers_see_finished_trials_whose_target_is_no_param(search: Search, sampler: str) -> None:
    search.run(trials=14, chain=CHAIN[:2], sampler=sampler)
    trials = search.trials
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 14
    assert all("cofi/target_sparsity" not in trial.params for trial in trials)
    for trial in trials:
        link = link_of(trial)
        assert link is not None
        root = trials[int(link.root[-4:])]
        assert trial.params == root.params, "a sampler knows what gave these objectives"
        assert trial.distributions == root.distributions
        settings = trial.user_attrs["settings"]
        assert settings["cofi/target_sparsity"] == link.targets[-1]
        assert settings.get("reached", "") == " > ".join(map(str, link.targets[:-1]))
    assert len({str(trial.params) for trial in trials}) == 7, "14 trials are 7 proposals"


def test_a_chain_ends_with_a_link_that_gives_no_model_and_the_search_goes_on(search: Search) -> None:
    def measure(job: Job) -> Outcome:
        if job.trial.reached == CHAIN[:1]:
            return Outcome("pruned", "target_not_reached", "0.6 of 0.7")
        return search.measure(job)

    search.run(measure, trials=6)
    root = (None, CHAIN[:1])
    assert search.links() == [root, (0, CHAIN[:2]), root, (2, CHAIN[:2]), root, (4, CHAIN[:2])]


def test_stopped_in_every_trial_there_is_one_link_for_each_parent(
    search: Search, stand_in: Any, tmp_path: Path
) -> None:
    stopped: set[str] = set()

    def measure(job: Job) -> Outcome | str:
        if job.trial_id not in stopped:
            stopped.add(job.trial_id)
            return "stopped"
        return search.measure(job)

    for _ in range(7):
        search.run(measure, trials=7, sampler="tpe")
    search.run(measure, trials=7, sampler="tpe")
    assert search.links() == ONE_AFTER_ANOTHER
    (tmp_path / "whole").mkdir()
    whole = Search(tmp_path / "whole", stand_in)
    whole.run(trials=7, sampler="tpe")
    assert [trial.params for trial in search.trials] == [trial.params for trial in whole.trials]


@pytest.mark.parametrize("at", ["enqueue_trial", "ask"])
@pytest.mark.parametrize("number", [2, 3, 4])
def test_a_driver_that_dies_while_it_asks_makes_each_link_once(
    search: Search, at: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Died(BaseException):
        pass

    whole = getattr(optuna.Study, at)

    def dying(study: optuna.Study, *args: Any, **more: Any) -> Any:
        made = whole(study, *args, **more)
        if len(study.trials) == number:
            raise Died
        return made

    with monkeypatch.context() as patch:
        patch.setattr(optuna.Study, at, dying)
        with pytest.raises(Died):
            search.run(trials=7)
    assert len(search.trials) == number
    search.run(trials=7)
    assert search.links() == ONE_AFTER_ANOTHER


def test_more_trials_go_on_with_the_chain_that_was_open(search: Search) -> None:
    search.run(trials=2)
    search.run(trials=4)
    assert search.links() == ONE_AFTER_ANOTHER[:4]


def test_a_point_with_a_target_of_its_own_is_of_no_chain(search: Search) -> None:
    point = {"cofi/target_sparsity": 0.8, "cofi/layer_mix": 0.9}
    search.run(trials=4, enqueue=(point,))
    assert search.links() == [(None, None), (None, CHAIN[:1]), (1, CHAIN[:2]), (2, CHAIN)]
    assert search.trials[0].params["cofi/target_sparsity"] == 0.8


def test_a_space_that_has_come_to_its_end_waits_for_the_links_of_what_runs(
    search: Search, tmp_path: Path
) -> None:
    space = tmp_path / "two.py"
    space.write_text(
        "def space(draw):\n    return {'cofi/target_sparsity': 0.5,"
        " 'cofi/layer_mix': draw.suggest_categorical('cofi/layer_mix', [0.1, 0.9])}\n"
    )
    proposals = search.proposals(space=str(space), chain=CHAIN[:2], trials=9)
    running: list[tuple[str, Job]] = []
    heard: list[Any] = []
    for turn in map(str, range(12)):
        asked = proposals.suggest(turn)
        heard.append(asked if not isinstance(asked, dict) else "trial")
        if isinstance(asked, dict):
            running.append((turn, asked["job"]))
        elif running:  # both places are taken, or nothing else can be proposed
            name, job = running.pop(0)
            proposals.on_trial_complete(name, {KEY: encode(Message(search.measure(job)))})
        else:
            break
    assert heard[:3] == ["trial", "trial", None], "the search is not over"
    assert heard[-1] == "FINISHED"
    complete = [link_of(trial) for trial in search.trials if trial.state is TrialState.COMPLETE]
    assert sorted(link.targets for link in complete if link) == [*[CHAIN[:1]] * 2, *[CHAIN[:2]] * 2]


def test_states_that_nobody_begins_with_any_more_are_removed(search: Search) -> None:
    kept: list[list[str]] = []

    def measure(job: Job) -> Outcome:
        trials = job.setup.output.parent
        kept.append(sorted(path.parent.name for path in trials.glob(f"*/{checkpoint.LINK}")))
        if job.setup.hands_on:
            (job.setup.output / checkpoint.LINK).mkdir(parents=True)
        if len(kept) == 5:
            return Outcome("pruned", "overshoot", "on the way")
        return search.measure(job)

    search.run(measure, trials=6)
    ids = [f"simulated-{number:04d}" for number in range(6)]
    assert kept == [[], ids[:1], ids[1:2], [], ids[3:4], []]
    left = search.directory / "simulated" / "trials"
    assert [path.parent.name for path in left.glob(f"*/{checkpoint.LINK}")] == [ids[5]], "for more --trials"


def test_another_chain_is_another_study(stand_in: Any) -> None:
    stand_in.run("other", chain=CHAIN, trials=1)
    for changes in ({"chain": CHAIN[:2]}, {"chain": ()}, {"chain": CHAIN, "chain_epochs": 1.0}):
        with pytest.raises(OtherPurpose, match=r"chain: .50, 70, 90 %.*another --name"):
            stand_in.run("other", trials=1, **changes)


@pytest.mark.parametrize(
    ("place", "parent", "end", "unneeded"),
    [
        (1, None, Outcome("complete"), []),
        (2, "s-0", Outcome("complete"), ["s-0"]),
        (2, "s-0", Outcome.failed("lost"), ["s-0", "s-1"]),
        (3, "s-0", Outcome("complete"), ["s-0", "s-1"]),
        (None, None, Outcome("complete"), []),
    ],
)
def test_states_that_nobody_begins_with_any_more(
    place: int | None, parent: str | None, end: Outcome, unneeded: list[str]
) -> None:
    links = OpenLinks()
    link = None if place is None else Link("s-0", parent, place, CHAIN)
    links.started(Asked("s-1", {}, {}, link=link))
    assert links.over("s-1", end) == unneeded
    assert links.over("s-1", end) == [], "said once"


def drawn() -> Iterator[Any]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    while True:
        yield study.ask()


@pytest.mark.parametrize("name", search_spaces.names())
def test_a_given_target_is_not_drawn_and_all_else_is(name: str) -> None:
    space = search_spaces.load(name, "rte").space
    free, given = (next(drawn()) for _ in range(2))
    space(free)
    proposal = chains.at(space, 0.42)(given)
    assert proposal["cofi/target_sparsity"] == 0.42
    assert given.distributions == {
        name: one for name, one in free.distributions.items() if not name.endswith(chains.TARGET)
    }


def test_a_space_without_targets_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"no <method>/target_sparsity for its method 'dense'; give --chain off"
    ):
        chains.at(lambda draw: {"method": "dense"}, 0.5)(None)


def test_points_of_a_space_are_tried_once_as_recipes() -> None:
    one, other = {"a": 1, "cofi/target_sparsity": 0.6}, {"a": 1, "cofi/target_sparsity": 0.9}
    assert chains.without_target([one, other, {"a": 2}]) == [{"a": 1}, {"a": 2}]
