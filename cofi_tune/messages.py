"""What the workers of a search tell the driver, and who listens to it there.

Messages travel as JSON text: nothing is unpickled by this package, and none of Ray's reserved result names
(`pid`, `done`, `training_iteration`, ...) can overwrite ours.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol

from cofi_tune.records import DISK_FULL, INTERRUPTED, OUTPUT_AWAY, PARENT_LOST, Measurement, Progress

KEY = "cofi_tune_message"
"""The only key of a result that is ours."""

State = Literal["complete", "pruned", "fail"]

LOST = "lost"
"""Reason of a trial whose processes died again and again."""
UNFINISHED = (INTERRUPTED, DISK_FULL, OUTPUT_AWAY)
"""Reasons that end no trial: the study keeps it as running, and the next search goes on with it."""
DUPLICATE = "duplicate"
"""Reason of a pruned trial that was proposed, but is another one again, and so was not run."""
FAIL_REASONS = (
    *(
        "non_finite",
        "invalid_metric",
        "out_of_memory",
        "timeout",
        LOST,
        PARENT_LOST,
        "invalid_point",
        "error",
    ),
)
"""Why a trial can have failed, as the study has it."""


@dataclass(frozen=True)
class Outcome:
    """How a trial ended."""

    state: State
    """complete: it has objectives; pruned: stopped early on purpose; fail: it has no result."""
    reason: str | None = None
    """One word for what stopped it: target_not_reached, non_finite, out_of_memory, error, ..."""
    message: str = ""
    """One line for a person."""
    measurement: Measurement | None = None

    @classmethod
    def failed(cls, reason: str, message: str = "") -> Outcome:
        """The end of a trial without a result."""
        return cls("fail", reason, message)


@dataclass(frozen=True)
class Message:
    """One report of a worker."""

    content: Progress | Outcome
    warnings: tuple[str, ...] = ()
    """What the worker warned of since its last report."""
    earlier: tuple[Progress, ...] = ()
    """With an attempt's first message: the reports before its checkpoint, which may have been lost."""


@dataclass(frozen=True)
class Link:
    """Which link of a chain a trial is."""

    root: str
    """Id of the chain's first trial."""
    parent: str | None
    """Id of the trial before; None: it is the first."""
    place: int
    """1 for the first."""
    chain: tuple[float, ...]
    """Target sparsities of the whole chain."""

    @property
    def targets(self) -> tuple[float, ...]:
        """Up to its own."""
        return self.chain[: self.place]

    @property
    def is_last(self) -> bool:
        """Whether none follows."""
        return self.place == len(self.chain)


@dataclass(frozen=True)
class Asked:
    """A proposal that becomes a trial."""

    trial_id: str
    params: Mapping[str, Any]
    """As the sampler proposed them, by their names in the search space."""
    settings: Mapping[str, Any]
    """Every setting of the run, defaults included; the method's own under `<method>/`."""
    logarithmic: frozenset[str] = field(default_factory=frozenset)
    """Names of params that the space counts on a log scale."""
    reproduce: str = ""
    """The command that makes this model again, without a search."""
    link: Link | None = None
    """None: it is of no chain."""


class OpenLinks:
    """The links of chains that are on their way, and whose states they need."""

    def __init__(self) -> None:
        self._links: dict[str, Link] = {}

    def started(self, asked: Asked) -> None:
        """A trial was asked for."""
        if asked.link is not None:
            self._links[asked.trial_id] = asked.link

    def over(self, trial_id: str, outcome: Outcome) -> list[str]:
        """Ids of the trials whose kept states nobody begins with any more, now that this one is over."""
        link = self._links.pop(trial_id, None)
        if link is None:
            return []
        goes_on = outcome.state == "complete" and not link.is_last
        return [one for one in (link.parent, None if goes_on else trial_id) if one is not None]


class Watcher(Protocol):
    """Hears what happens to the trials, in the driver."""

    def started(self, asked: Asked) -> None:
        """A trial was proposed and is about to run."""

    def heard(self, trial_id: str, progress: Progress, late: bool = False) -> None:
        """A running trial reports.

        Args:
            trial_id: of the trial.
            progress: the report.
            late: an earlier attempt made it; it may have been heard then.
        """

    def warned(self, trial_id: str, text: str, again: bool = False) -> None:
        """A running trial warns.

        Args:
            trial_id: of the trial.
            text: of the warning.
            again: it is of use also where another trial has said the same.
        """

    def ended(self, trial_id: str, outcome: Outcome) -> None:
        """A trial is over, and the study knows."""


def encode(message: Message) -> str:
    """A message as text."""
    kind = "progress" if isinstance(message.content, Progress) else "outcome"
    return json.dumps({"kind": kind, **asdict(message)})


def decode(text: str) -> Message:
    """The inverse of `encode`."""
    raw = json.loads(text)
    of_kind = Progress(**raw["content"]) if raw["kind"] == "progress" else None
    content = of_kind or outcome_from_json(raw["content"])
    earlier = tuple(Progress(**one) for one in raw["earlier"])
    return Message(content, tuple(raw["warnings"]), earlier)


def outcome_from_json(raw: Mapping[str, Any]) -> Outcome:
    """An outcome from what `dataclasses.asdict` made of it."""
    measurement = raw["measurement"]
    return Outcome(**{**raw, "measurement": measurement and Measurement.from_json(measurement)})
