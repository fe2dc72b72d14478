"""Ray Tune's way to the study: asks for the next trial, tells how one ended."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import optuna
from optuna.trial import Trial, TrialState
from ray.tune.search import Searcher

from cofi_tune import chains, duplicates
from cofi_tune.budget import GPU_SECONDS, Budget, GpuMeter
from cofi_tune.interruption import Interruption
from cofi_tune.memory import REMEDY, Room
from cofi_tune.memory_kills import describe_kill
from cofi_tune.messages import (
    DUPLICATE,
    FAIL_REASONS,
    KEY,
    LOST,
    UNFINISHED,
    Link,
    Message,
    Outcome,
    Watcher,
    decode,
)
from cofi_tune.optuna_study import LINK, asked_of, link_of, tell, trial_id_of
from cofi_tune.points import ENQUEUED
from cofi_tune.records import DISK_FULL, INTERRUPTED, OUTPUT_AWAY, InvalidMetric, Progress

Space = Callable[[Any], Mapping[str, Any]]
Prepare = Callable[[str, Mapping[str, Any], Link | None], tuple[Any, Mapping[str, Any], str]]
"""Trial id, proposal and place in a chain -> the worker's job, every setting, and the command that makes the
model without a search. ValueError for an impossible proposal."""
MOST_MEMORY_KILLS = 2
"""Of a trial, after which it has failed: what it needs will not be there the next time either."""
SAMPLED_REPEATS, MOST_REPEATS = 2, 20
"""Duplicates in a row after which a finite space is walked through instead of sampled, and after which the
search ends: there is nothing new to be had."""


class Proposals(Searcher):
    """Ray Tune's way to the study: asks for the next trial, tells how one ended.

    Stock `OptunaSearch` leaves a NaN trial running for ever and tells a stopped one as complete; here only
    a finished trial with possible objectives is COMPLETE, and every other end has a reason.
    """

    def __init__(
        self,
        study: optuna.Study,
        space: Space,
        prepare: Prepare,
        sampler_for: Callable[[int], optuna.samplers.BaseSampler],
        budget: Budget,
        watchers: Sequence[Watcher] = (),
        unfinished: Sequence[Trial] = (),
        points: Sequence[Mapping[str, Any]] = (),
        gpus_per_trial: float = 0.0,
        stopper: Interruption | None = None,
        chain: Sequence[float] = (),
        room: Room | None = None,
    ) -> None:
        """
        Args:
            study: where trials are asked and told.
            space: proposes.
            prepare: checks a proposal and makes the worker's job of it.
            sampler_for: the sampler of a trial, by its number.
            budget: what may still be spent.
            watchers: hear of everything.
            unfinished: trials of an earlier driver, offered first, under their ids and with their parameters.
            points: params that are proposed next, before anything is sampled.
            gpus_per_trial: what one holds while it runs; its time is kept in the study.
            stopper: once it is requested, nothing is proposed any more.
            chain: target sparsities of every proposal, each a trial; empty: the space proposes the target.
            room: says whether there is memory for one more trial; None: nobody asks.
        """
        super().__init__()
        self.study, self.space, self.prepare, self.stopper = study, space, prepare, stopper
        self.sampler_for, self.budget, self.watchers = sampler_for, budget, watchers
        self.room = room
        self.unfinished, self.points, self.chain = [*unfinished], [*points], tuple(chain)
        self.ended_by: str | None = None
        """What ended the proposing, in words for a person."""
        self.running: dict[str, Trial] = {}
        """By Tune's own id, which is known nowhere else."""
        self._last: dict[str, str] = {}
        self._killed = Counter[str]()
        self._space_ended: str | None = None
        earlier = (one.user_attrs.get(GPU_SECONDS, 0.0) for one in study.get_trials(deepcopy=False))
        self.meter = GpuMeter(gpus_per_trial, sum(earlier))

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: the Tuner pickles its searcher, and nobody may bring it back from there."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the study is on disk."""

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next trial's config for Ray Tune; None: there is none yet; or that there will be none."""
        repeats = 0
        while True:
            if self.stopper is not None and self.stopper.requested:
                return str(Searcher.FINISHED)
            self.ended_by = self._nothing_left(repeats)
            if self.ended_by is not None:
                to_come = self.ended_by == self._space_ended and chains.may_follow(self.study)
                return None if to_come else str(Searcher.FINISHED)
            if self.room is not None and not self.room.admits(len(self.running)):
                return None
            if repeats >= SAMPLED_REPEATS:
                fresh = duplicates.untried(self.study)
                self.points = [fresh, *self.points] if fresh else self.points
            trial = self.unfinished.pop(0) if self.unfinished else self._ask()
            own_id = trial_id_of(self.study.study_name, trial.number)
            trial.set_user_attr("trial_id", own_id)
            self.running[trial_id] = trial
            try:
                link = self._link(trial, own_id)
                space = self.space if link is None else chains.at(self.space, link.chain[0])
                job, settings, reproduce = self.prepare(own_id, space(trial), link)
            except optuna.exceptions.StorageInternalError:
                raise
            except Exception as error:  # a user's own space may raise anything
                what = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
                self.budget.trials -= 1
                self._start(own_id, trial)
                self._end(trial_id, Outcome.failed("invalid_point", what))
                continue
            twin = duplicates.repeats(self.study, trial.number, settings)
            trial.set_user_attr("settings", dict(settings))
            trial.set_user_attr("reproduce", reproduce)
            self._start(own_id, trial)
            if twin is not None:
                repeats += 1
                self._end(trial_id, Outcome("pruned", DUPLICATE, f"its settings are those of {twin}"))
                continue
            self.budget.trials -= 1
            self.meter.start(trial)
            return {"job": job, "trial_id": own_id}

    def _nothing_left(self, repeats: int) -> str | None:
        """What ends the proposing, if anything does."""
        spent = self.budget.spent(self.meter.seconds)
        if spent is not None or self.unfinished or self.points:
            return spent
        if chains.due(self.study, self.chain) or self.study.get_trials(False, states=(TrialState.WAITING,)):
            return None
        if self._space_ended is None and repeats >= MOST_REPEATS:
            said = f"the space, which has nothing new: {repeats} proposals in a row repeat earlier trials"
            self._space_ended = said
        number = duplicates.exhausted(self.study)
        if self._space_ended is None and number is not None:
            self._space_ended = f"the space: all of its {number} combinations have been tried"
        return self._space_ended

    def _link(self, trial: Trial, own_id: str) -> Link | None:
        """A trial's place in a chain: that of a point with a target of its own is in none."""
        given = trial.user_attrs.get(ENQUEUED, {})
        if not self.chain or chains.has_target(given):
            return None
        link = link_of(trial)
        if link is None:
            link = Link(own_id, None, 1, self.chain)
            trial.set_user_attr(LINK, asdict(link))
        return link

    def _ask(self) -> Trial:
        trials = self.study.get_trials(deepcopy=False)
        waiting = next((one.number for one in trials if one.state is TrialState.WAITING), None)
        if waiting is None:  # else an earlier driver died before it could ask
            self._enqueue()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self.study.sampler = self.sampler_for(len(trials) if waiting is None else waiting)
            return self.study.ask()

    def _enqueue(self) -> None:
        """Make Optuna ask for the next link, or else for the next point, if there is one."""
        due = chains.due(self.study, self.chain)
        if due is not None:
            params, link = due
            self.study.enqueue_trial(params, user_attrs={LINK: asdict(link)})
        elif self.points:
            point = dict(self.points.pop(0))
            self.study.enqueue_trial(point, user_attrs={ENQUEUED: point})

    def on_trial_result(self, trial_id: str, result: Mapping[str, Any]) -> None:
        """A worker's message came."""
        text = result.get(KEY)
        trial = self.running.get(trial_id)
        # Tune sends the last result of a trial twice.
        if trial is None or text is None or self._last.get(trial_id) == text:
            return
        self._last[trial_id] = text
        self.meter.read(trial)
        try:
            message = decode(text)
        except InvalidMetric as error:
            message = Message(Outcome.failed("invalid_metric", str(error)))
        own_id = trial_id_of(self.study.study_name, trial.number)
        for watcher in self.watchers:
            for warning in message.warnings:
                watcher.warned(own_id, warning)
            for progress in message.earlier:
                watcher.heard(own_id, progress, late=True)
            if isinstance(message.content, Progress):
                watcher.heard(own_id, message.content)
        if isinstance(message.content, Outcome):
            unfinished = message.content.reason in UNFINISHED
            (self._interrupt if unfinished else self._end)(trial_id, message.content)

    def on_trial_complete(
        self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False
    ) -> None:
        """Tune is done with a trial; one that has not said how it ended is lost."""
        self.on_trial_result(trial_id, result or {})
        if trial_id in self.running:
            what = "its process died again and again" if error else "it ended without a word"
            self._end(trial_id, Outcome.failed(LOST, what))

    def recovered(self, trial_id: str, error: str) -> Outcome | None:
        """A trial lost a process, and Tune tries it again.

        Args:
            trial_id: Tune's own.
            error: what Ray said of it.

        Returns:
            How it has ended, if it is not to be tried again.
        """
        trial = self.running.get(trial_id)
        if trial is None:
            return None
        killed = describe_kill(error)
        self._killed[trial_id] += killed is not None
        if killed and self.room is not None:
            self.room.lower(len(self.running))
        if killed and self._killed[trial_id] >= MOST_MEMORY_KILLS:
            outcome = Outcome.failed("out_of_memory", f"{killed}, for the second time; {REMEDY}")
            self._end(trial_id, outcome)
            return outcome
        text = "a process of it died; it goes on from its last checkpoint"
        if killed:
            text = f"{killed}; it resumes from its last checkpoint"
        for watcher in self.watchers:
            watcher.warned(trial_id_of(self.study.study_name, trial.number), text, again=killed is not None)
        return None

    def on_their_way(self) -> list[str]:
        """Ids of the trials that were proposed and have not ended."""
        return [trial_id_of(self.study.study_name, trial.number) for trial in self.running.values()]

    def leave(self, why: str) -> None:
        """Give up what still runs: Optuna keeps it as running, and the next search offers it again first."""
        # Tune does not ask again when it has as many as it wanted.
        self.ended_by = self.ended_by or self.budget.spent(self.meter.seconds)
        self.budget.trials = 0
        for trial_id in [*self.running]:
            self._interrupt(trial_id, Outcome.failed(INTERRUPTED, why))

    def _interrupt(self, trial_id: str, outcome: Outcome) -> None:
        """A trial that can go on has no end yet: the study is told nothing."""
        trial = self.running.pop(trial_id)
        self.meter.read(trial, over=True)
        for watcher in self.watchers:
            watcher.ended(trial_id_of(self.study.study_name, trial.number), outcome)
        if outcome.reason == DISK_FULL and self.stopper is not None:
            self.stopper.request(f"the disk is full ({outcome.message}); make room, and run the same command")
        if outcome.reason == OUTPUT_AWAY and self.stopper is not None:
            self.stopper.request(outcome.message)

    def _start(self, own_id: str, trial: Trial) -> None:
        asked = asked_of(own_id, trial)
        for watcher in self.watchers:
            watcher.started(asked)

    def _end(self, trial_id: str, outcome: Outcome) -> None:
        trial = self.running.pop(trial_id)
        if outcome.state == "complete" and outcome.measurement is None:
            outcome = Outcome.failed("invalid_metric", "it ended without a measurement")
        if outcome.state == "fail" and outcome.reason not in FAIL_REASONS:
            outcome = Outcome.failed("error", f"{outcome.reason}: {outcome.message}")
        self.meter.read(trial, over=True)
        # The attribute first: should the driver die in between, `settle` finishes what it says.
        trial.set_user_attr("outcome", asdict(outcome))
        tell(self.study, trial, outcome)
        for watcher in self.watchers:
            watcher.ended(trial_id_of(self.study.study_name, trial.number), outcome)
