"""What a study and a trial are asked to do: frozen, strict, checked at birth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cofi_tune.mirror import Mirror
from cofi_tune.records import SCENARIOS

Precision = Literal["fp32", "bf16", "auto"]
"""Of training; "auto" is decided where it runs, see `precision.py`."""
PRECISIONS: tuple[str, ...] = get_args(Precision)

TEACHER_CACHE_BYTES = 4 * 2**30
"""What may be kept of a teacher's outputs, unless the user says otherwise."""
CHAIN_EPOCHS = 0.25
"""Of a link of a chain, in units of the first one's: about what a front for a fifth of the compute was made
with (README, Measured)."""

T = TypeVar("T", bound=BaseModel)


class Strict(BaseModel):
    """A frozen record that refuses unknown names, wrong types, NaN and infinity."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, protected_namespaces=()
    )


class TrialConfig(Strict):
    """The hyperparameters of one run. `options` belong to the method and are checked by its own Config."""

    method: str = "cofi"
    options: dict[str, Any] = Field(default_factory=dict)
    seed: int = Field(default=0, ge=0)
    epochs: float = Field(default=20.0, gt=0)
    """Passes over the training rows, pruning and recovery together."""
    finetune_epochs: float = Field(default=0.0, ge=0)
    """Passes before pruning starts, with distillation but without gates."""
    batch_size: int = Field(default=32, ge=1)
    learning_rate: float = Field(default=2e-5, gt=0)
    init: Literal["teacher", "pretrained"] = "teacher"
    """What the student starts from. Xia et al. start from the pretrained checkpoint and find the
    teacher's weights "very similar"; the teacher needs no finetuning phase, hence the default."""
    dropout: float | None = Field(default=None, ge=0, lt=1)
    """Overrides every dropout rate of the model; None keeps the checkpoint's."""
    clip_norm: float = Field(default=1.0, gt=0)
    reached: tuple[float, ...] = ()
    """Target sparsities that the runs before this one of its chain have reached, in order: it begins with
    what the last of them had at the end of pruning. Empty: it begins with the dense model."""

    @classmethod
    def from_proposal(
        cls, proposal: Mapping[str, Any], *, base_learning_rate: float, epochs: float, seed: int
    ) -> TrialConfig:
        """A proposal of a search space, in absolute terms.

        Args:
            proposal: names of this class, names of the method's options under `<method>/`, and
                `learning_rate_ratio` in units of `base_learning_rate`.
            base_learning_rate: the rate at which this model's teacher is fine-tuned.
            epochs: the study's budget for a trial, unless the space proposes its own.
            seed: of initialisation, order and gates, unless the space proposes its own.

        Raises:
            ValueError: an unknown name or a value out of range, naming it.
        """
        own = {k: v for k, v in proposal.items() if "/" not in k}
        if "options" in own:
            raise ValueError("options: name each under its method, such as cofi/target_sparsity")
        method = own.get("method", "cofi")
        options = {}
        for name, value in proposal.items():
            prefix, slash, option = name.partition("/")
            if slash and prefix != method:
                raise ValueError(
                    f"{name}: this trial's method is {method!r}, its options start with {method}/"
                )
            if slash:
                options[option] = value
        ratio = own.pop("learning_rate_ratio", 1.0)
        defaults = {"epochs": float(epochs), "seed": seed, "learning_rate": base_learning_rate * ratio}
        return build(cls, {**defaults, **own, "options": options})

    def links(self, chain: Sequence[float], epochs: float) -> list[TrialConfig]:
        """The runs of a chain, this one first.

        Args:
            chain: every target, this run's first; empty: there is no other run.
            epochs: of each run after this one, in units of this one's.
        """
        made = [self]
        for target in chain[1:]:
            made.append(made[-1].link(target, epochs * self.epochs))
        return made

    def link(self, target_sparsity: float, epochs: float) -> TrialConfig:
        """The run that goes on from where this one ends pruning, to a higher target.

        Args:
            target_sparsity: in (0, 1), above this run's.
            epochs: of its pruning and recovery together.
        """
        reached = (*self.reached, self.options["target_sparsity"])
        options = {**self.options, "target_sparsity": target_sparsity}
        own = {"options": options, "reached": reached, "epochs": epochs, "finetune_epochs": 0.0}
        return build(TrialConfig, {**self.model_dump(), **own})


class TeacherCache(Strict):
    """Where the outputs of teachers are kept for all trials, and how much of each on one task."""

    directory: Path
    num_bytes: int = Field(default=TEACHER_CACHE_BYTES, ge=1)

    @classmethod
    def below(cls, output: Path, num_bytes: int) -> TeacherCache | None:
        """That of an output; none of 0 bytes."""
        directory = output.absolute() / "teacher_outputs"
        return cls(directory=directory, num_bytes=num_bytes) if num_bytes else None


class Setup(Strict):
    """Where a run finds its data and teacher, where it writes, and what it runs on."""

    data: Path
    """Directory of the encoded task (`cofi_tune.data.encode`)."""
    teacher: Path
    output: Path
    """Receives `model/`, `plan.json`, `measurement.json`."""
    pretrained: str | None = None
    """What `init: pretrained` starts from: a name or directory as for `--model`."""
    device: str = "cpu"
    num_threads: int | None = Field(default=None, ge=1)
    scenario: Literal["throughput", "latency"] = "throughput"
    """Whose speedup is the objective."""
    scenarios: tuple[str, ...] = SCENARIOS[:2]
    selection: Literal["train", "dev"] = "train"
    """Rows that choose the best checkpoint. "dev" is the paper's protocol, and selects on reported rows."""
    model_seed: int = 0
    parent: Path | None = None
    """Output of the run that this one goes on from, for a trial that has `reached` some target."""
    hands_on: bool = False
    """Whether another run is to go on from the end of this one's pruning: its state of then is kept."""
    precision: Precision = "auto"
    shrink: bool = True
    """Whether a student becomes smaller while it is pruned."""
    timing: Literal["alone", "crowd", "bench"] = "alone"
    """Whether the model is timed on this run's device, with nothing of ours beside it or in a crowd of
    trials, or alone on the cluster's bench."""
    timed: Path | None = None
    """Where times of structures are kept, so that each is timed once; None: every model is timed."""
    checkpoint_seconds: float = Field(default=30.0, ge=0)
    """From one checkpoint to the next, at least."""
    timeout_seconds: float = Field(default=1800.0, gt=0)
    """Without a step, after which a worker ends itself."""
    teacher_cache: TeacherCache | None = None
    """None: the teacher runs in every step."""
    mirror: Mirror | None = None
    """Of the study's output, where that is a URL; all directories are then in its working copy."""
    stop_file: Path | None = None
    """Workers save a checkpoint and stop once it exists. Its name is of one driver alone."""


class StudyConfig(Strict):
    """One search."""

    name: str
    task: str
    source: dict[str, Any]
    model: str
    tokenizer: str | None = None
    teacher: str | None = None
    space: str = "cofi"
    chain: tuple[float, ...] = ()
    """Target sparsities that each proposal is pruned to, one after another; empty: those of the space."""
    chain_epochs: float = Field(default=CHAIN_EPOCHS, gt=0)
    """Passes over the training rows of a link that follows another, in units of the first one's."""
    trials: int = Field(default=16, ge=1)
    epochs: float = Field(gt=0)
    teacher_epochs: float = Field(gt=0)
    base_learning_rate: float = Field(gt=0)
    enqueue: tuple[dict[str, Any], ...] = ()
    """Points to propose before the space's own."""
    warm_start: tuple[str, ...] = ()
    """Names of earlier studies in the same storage."""
    min_score: float | None = None
    min_speedup: float | None = None
    """What every model must have; belongs to the study's purpose, as the objectives do."""
    time_budget_seconds: float | None = Field(default=None, gt=0)
    """Of this invocation."""
    gpu_hours: float | None = Field(default=None, gt=0)
    """Of the study, over all invocations."""
    sampler: str = "tpe"
    seed: int = Field(default=0, ge=0)
    max_train_samples: int | None = Field(default=None, ge=1)
    scenario: Literal["throughput", "latency"] = "throughput"
    reference_protocol: bool = False
    time_each: bool = False
    """Time every model, though another of the same structure has been timed."""
    selection: Literal["train", "dev"] = "train"
    workers_per_trial: int = Field(ge=0)
    concurrency: int = Field(ge=0)
    """Trials at a time; 0: as many as the cluster holds, which is known once it is joined."""
    cpus_per_worker: int = Field(ge=1)
    gpus_per_worker: float = Field(ge=0)
    precision: Precision = "auto"
    shrink: bool = True
    checkpoint_seconds: float = Field(default=30.0, ge=0)
    timeout_seconds: float = Field(default=1800.0, gt=0)
    teacher_cache_bytes: int = Field(default=TEACHER_CACHE_BYTES, ge=0)
    output: Path
    mirror: Mirror | None = None
    """Where the output is a URL; `output` is then its working copy."""
    tracking_uri: str
    storage: str
    command: str = ""
    """What the user typed."""
    report: bool = True
    """Whether the search ends by writing `report.html`; the front is written in any case."""

    @property
    def directory(self) -> Path:
        """Everything of this study but the databases."""
        return self.output / self.name

    @property
    def place(self) -> str:
        """The output as the user calls it."""
        return str(self.output) if self.mirror is None else self.mirror.place

    @property
    def gpus_per_trial(self) -> float:
        """What a running trial holds."""
        return max(1, self.workers_per_trial) * self.gpus_per_worker

    @property
    def processors_per_trial(self) -> float:
        """GPUs that a running trial holds, or else threads."""
        return self.gpus_per_trial or float(max(1, self.workers_per_trial) * self.cpus_per_worker)

    @property
    def device(self) -> str:
        """Where trials run."""
        return "cuda" if self.gpus_per_worker else "cpu"

    @property
    def trained_in(self) -> Precision:
        """As far as it is known before a trial has its device: "auto" only where trials run on GPUs."""
        return "fp32" if self.precision == "auto" and self.device == "cpu" else self.precision


def build(model: type[T], values: Mapping[str, Any]) -> T:
    """`model(**values)`, with a one-line `ValueError` that names what is wrong."""
    try:
        return model(**values)
    except ValidationError as error:
        lines = []
        for problem in error.errors():
            name = ".".join(str(part) for part in problem["loc"])
            if problem["type"] == "extra_forbidden":
                known = ", ".join(sorted(model.model_fields))
                lines.append(f"{name}: unknown; known are {known}")
            else:
                lines.append(
                    f"{name}: {problem['msg'][0].lower()}{problem['msg'][1:]} (got {problem['input']!r})"
                )
        raise ValueError("; ".join(lines)) from None


def check_chain(targets: Sequence[float]) -> tuple[float, ...]:
    """The target sparsities of a chain.

    Raises:
        ValueError: not two at least, or one that is not above the one before and within (0, 1).
    """
    between = all(isinstance(one, (int, float)) and 0 < one < 1 for one in targets)
    if not between or len(targets) < 2 or sorted(set(targets)) != [*targets]:
        said = ",".join(map(str, targets))
        raise ValueError(f"{said}: a chain is two or more sparsities that rise within 0 and 1: 0.6,0.75,0.9")
    return tuple(map(float, targets))
