"""The teacher's outputs are made once, by whoever comes first; a budget says which of them are kept."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cofi_tune import compress, evaluate, methods, teacher_cache, teacher_outputs
from cofi_tune.config import Setup, TeacherCache, TrialConfig
from cofi_tune.data.encoded import EncodedTask, open_encoded
from cofi_tune.modeling_cofi import CofiForSequenceClassification
from cofi_tune.ranks import Ranks
from cofi_tune.records import INTERRUPTED, Measurement, Note, Progress, Stopped
from cofi_tune.teacher_cache import Kept, prepare, shortage
from cofi_tune.teacher_files import LOGITS, Part, sizes
from cofi_tune.upkeep import Upkeep

MakeModel = Callable[..., CofiForSequenceClassification]
LAYERS = 6
OPTIONS = {"target_sparsity": 0.5, "mask_travel": 20.0, "warmup_fraction": 0.5}

BUILD = """
import sys, time, warnings
from pathlib import Path
from cofi_tune import methods, teacher, teacher_cache
from cofi_tune.config import Setup, TrialConfig
from cofi_tune.data.encoded import open_encoded
from cofi_tune.upkeep import Upkeep

setup = Setup.model_validate_json(sys.argv[1], strict=False)
data = open_encoded(setup.data)
method = methods.load("cofi")(TrialConfig(options={"target_sparsity": 0.5}), teacher.load(setup.teacher), 4)
warnings.showwarning = lambda message, *rest: print(message, flush=True)

def beat():
    print("beat", flush=True)
    time.sleep(float(sys.argv[2]))

assert teacher_cache.prepare(setup, data, method, upkeep=Upkeep(beat=beat)).guide is not None
"""


@pytest.fixture
def setup(make_model: MakeModel, toy_on_disk: EncodedTask, tmp_path: Path) -> Setup:
    model = make_model(layers=LAYERS, seed=1)
    model.config.id2label, model.config.label2id = {0: "no", 1: "yes"}, {"no": 0, "yes": 1}
    model.save_pretrained(tmp_path / "teacher")
    return Setup(
        data=toy_on_disk.directory,
        teacher=tmp_path / "teacher",
        output=tmp_path / "out",
        num_threads=1,
        teacher_cache=TeacherCache(directory=tmp_path / "cache"),
    )


def attached(setup: Setup, name: str = "cofi", **options: Any) -> methods.Method:
    student = CofiForSequenceClassification.from_pretrained(setup.teacher)
    known = {**OPTIONS, **options} if name == "cofi" else options
    return methods.load(name)(TrialConfig(method=name, options=known), student, 4)


def kept_by(setup: Setup, name: str = "cofi", **options: Any) -> tuple[Kept, list[str]]:
    """What a trial gets, and what it is told."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        kept = prepare(setup, open_encoded(setup.data), attached(setup, name, **options))
    return kept, [str(one.message) for one in caught]


def within(setup: Setup, num_bytes: int) -> Setup:
    directory = cache_of(setup)
    return setup.model_copy(update={"teacher_cache": TeacherCache(directory=directory, num_bytes=num_bytes)})


def cache_of(setup: Setup) -> Path:
    assert setup.teacher_cache is not None
    return setup.teacher_cache.directory


def names(setup: Setup) -> set[str]:
    return {name for entry in cache_of(setup).glob("[!.]*") for name in sizes(entry)}


def whole(setup: Setup, *layers: int) -> int:
    """Bytes of all outputs: two of each hidden unit of a token, four of a logit."""
    data = open_encoded(setup.data)
    train, dev = data.splits["train"], data.splits["dev"]
    return 4 * 2 * (len(train) + len(dev)) + len(layers) * len(train.input_ids) * 32 * 2


def test_each_method_has_what_it_asks_and_no_more_is_kept(setup: Setup) -> None:
    kept, said = kept_by(setup, "dense")
    assert kept.guide is None
    assert names(setup) == {"dev.dev"}
    assert len(said) == 1
    kept, said = kept_by(setup, layer_matching="off")
    assert kept.guide is not None
    assert names(setup) == {"dev.dev", LOGITS}
    first = {"dev.dev", LOGITS, *(f"layer-{i:02d}" for i in (1, 2, 4, 5))}
    for matching in ("v3", "v4"):
        kept, said = kept_by(setup, layer_matching=matching)
        assert kept.guide is not None
        assert names(setup) == first
        assert ("made in" if matching == "v3" else "found") in said[0]
    kept, said = kept_by(setup, layer_matching="v6")
    assert kept.guide is not None
    assert set(kept.guide.layers) == set(range(LAYERS))
    assert names(setup) == first | {"layer-00", "layer-03"}


def test_dev_logits_are_those_that_the_teacher_is_scored_by(setup: Setup) -> None:
    data = open_encoded(setup.data)
    live = evaluate.predict_dev(CofiForSequenceClassification.from_pretrained(setup.teacher).eval(), data)
    for _ in range(2):
        kept, _said = kept_by(setup)
        assert kept.dev_logits is not None
        assert (kept.dev_logits["dev"] == live["dev"]).all()


def test_another_teacher_task_precision_or_switch_finds_nothing(setup: Setup, make_model: MakeModel) -> None:
    kept_by(setup)
    assert "found" in kept_by(setup)[1][0]
    assert "made in" in kept_by(setup.model_copy(update={"precision": "bf16"}))[1][0]
    CofiForSequenceClassification.from_pretrained(setup.teacher)
    make_model(layers=LAYERS, seed=2).save_pretrained(setup.teacher)  # under the same name
    assert "made in" in kept_by(setup)[1][0]
    assert kept_by(setup.model_copy(update={"teacher_cache": None})) == (Kept(), [])


PARTS = [Part("a", (3, 4), np.float32), Part("b", (5, 8), np.float16)]


@pytest.mark.parametrize(
    ("there", "budget", "free", "why"),
    [
        ({}, 128, 256, ""),
        ({}, 127, 10**9, "take 128 B, --teacher-cache allows 127 B"),
        ({}, 10**9, 255, "take 128 B, and the disk has 255 B"),
        ({"a": 48}, 128, 160, ""),
        ({"a": 48, "b": 80}, 128, 0, ""),
        ({"a": 48, "b": 80, "c": 100}, 228, 0, ""),
        ({"c": 100}, 227, 10**9, "take 228 B"),
    ],
)
def test_what_is_wanted_and_what_is_there_share_the_budget(
    there: dict[str, int], budget: int, free: int, why: str
) -> None:
    told = shortage(PARTS, there, budget, free)
    assert why in told
    assert bool(why) == bool(told)


def test_below_the_budget_states_are_kept_above_it_they_are_not(setup: Setup) -> None:
    for num_bytes, guided, more in (
        (whole(setup, *range(4)) - 1, False, {"dev.dev"}),
        (whole(setup, *range(4)), True, {f"layer-{i:02d}" for i in (1, 2, 4, 5)} | {LOGITS}),
    ):
        own = within(setup, num_bytes)
        kept, said = kept_by(own)
        assert (kept.guide is not None) == guided
        assert kept.dev_logits is not None
        assert more <= names(setup)
        assert guided or ("the teacher runs in every step" in said[0] and LOGITS not in names(setup))
    # A method without layers has its logits, in whatever is left.
    assert kept_by(own, layer_matching="off")[0].guide is not None
    # Those of v6 do not fit beside the four that are there.
    kept, said = kept_by(own, layer_matching="v6")
    assert kept.guide is None
    assert "the teacher runs in every step" in said[0]
    assert kept_by(within(setup, 10))[0] == Kept()


def test_too_large_states_are_said_once_to_each_trial_and_not_computed_again(
    setup: Setup, make_model: MakeModel
) -> None:
    model = make_model(layers=LAYERS)
    last = model.layers[5].ffn
    assert last is not None
    with torch.no_grad():
        last.norm.weight.mul_(1e6)
    model.save_pretrained(setup.teacher)
    for _ in range(2):
        kept, said = kept_by(setup)
        assert kept.guide is None
        assert kept.dev_logits is not None
        assert any("half precision does not hold its hidden states" in text for text in said)
        assert names(setup) == {"dev.dev"}
    assert kept_by(setup, layer_matching="off")[0].guide is not None


def test_a_stop_on_request_leaves_nothing_and_says_interrupted(setup: Setup) -> None:
    upkeep = Upkeep(stop_requested=lambda: True)
    with pytest.raises(Stopped) as stopped:
        prepare(setup, open_encoded(setup.data), attached(setup), upkeep=upkeep)
    assert stopped.value.reason == INTERRUPTED
    assert names(setup) == {"dev.dev"}
    assert [*cache_of(setup).rglob(".new-*")] == []


@pytest.mark.parametrize(("guided", "scored"), [(1, 1), (0, 1), (0, 0)])
def test_workers_go_on_with_what_all_of_them_have(setup: Setup, guided: int, scored: int) -> None:
    kept = prepare(setup, open_encoded(setup.data), attached(setup), beside(1, guided, scored))
    assert (kept.guide is not None, kept.dev_logits is not None) == (bool(guided), bool(scored))


def test_workers_stop_together(setup: Setup) -> None:
    with pytest.raises(Stopped) as stopped:
        prepare(setup, open_encoded(setup.data), attached(setup), beside(0, 0, 0))
    assert stopped.value.reason == INTERRUPTED


def beside(*other: float) -> Ranks:
    """The first of two workers; what the other one says of itself."""

    class Told(Ranks):
        def gather(self, tensor: torch.Tensor, device: torch.device) -> list[torch.Tensor]:
            return [tensor, torch.tensor(other, dtype=torch.float32)]

    return Told(0, 2)


def start(setup: Setup, pause: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", BUILD, setup.model_dump_json(), str(pause)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def test_a_build_that_is_killed_leaves_nothing_half(setup: Setup) -> None:
    process = start(setup, 60.0)
    assert process.stdout is not None
    assert process.stdout.readline() == "beat\n"
    assert len([*cache_of(setup).rglob(".new-*")]) == 5
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert names(setup) == {"dev.dev"}
    kept, said = kept_by(setup)
    assert kept.guide is not None
    assert "made in" in said[0]
    assert [*cache_of(setup).rglob(".new-*")] == []


@pytest.mark.long
def test_two_processes_make_it_once(setup: Setup) -> None:
    processes = [start(setup, 0.3) for _ in range(2)]
    said = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    assert sum("made in" in text for text in said) == 1
    assert sum("found" in text for text in said) == 1


@pytest.mark.parametrize("part", ["layer-02", LOGITS, "dev.dev"])
def test_what_is_damaged_is_made_again(setup: Setup, part: str) -> None:
    whole_kept, _ = kept_by(setup)
    [path] = cache_of(setup).glob(f"*/{part}.*.npy")
    text = path.read_bytes()
    path.unlink()  # whoever has it mapped keeps it
    path.write_bytes(text[:-3])
    others = {one: one.stat().st_mtime_ns for one in path.parent.glob("*.npy") if one != path}
    time.sleep(0.01)
    kept, said = kept_by(setup)
    assert kept.guide is not None
    assert said[0].endswith(f"not as they were written, made again: {part}")
    assert "made in" in said[1]
    assert path.read_bytes() == text
    assert others == {one: one.stat().st_mtime_ns for one in others}
    assert "found" in kept_by(setup)[1][0]
    assert whole_kept.guide is not None


def test_what_cannot_be_replaced_leaves_the_teacher_to_run(setup: Setup) -> None:
    kept_by(setup)
    [path] = cache_of(setup).glob("*/layer-02.*.npy")
    path.unlink()
    path.mkdir()
    kept, said = kept_by(setup)
    assert kept == Kept()
    assert "the teacher runs in every step" in said[-1]
    assert path.name in said[-1]


def test_a_disk_that_loses_what_is_written_is_said(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(*parts: Any) -> None:
        teacher_outputs.write(*parts)
        next(cache_of(setup).glob("*/layer-*.npy")).unlink()

    monkeypatch.setattr(teacher_cache, "write", write)
    kept, said = kept_by(setup)
    assert kept == Kept()
    assert "is not there, or is not what was written" in said[0]


def run(setup: Setup, name: str, **changes: Any) -> tuple[list[Progress], Measurement]:
    trial = TrialConfig(options=OPTIONS, epochs=5.0, learning_rate=1e-3, dropout=0.1)
    own = setup.model_copy(update={"output": setup.output / name, **changes})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Note)
        *reports, last = compress.compress(trial, own)
    assert isinstance(last, Measurement)
    return [one for one in reports if isinstance(one, Progress)], last


def test_a_trial_learns_the_same_with_and_without(setup: Setup) -> None:
    live, measured_live = run(setup, "live", teacher_cache=None)
    made, measured = run(setup, "made")
    found, _ = run(setup, "found")
    assert [one.losses for one in made] == [one.losses for one in found]
    for ours, theirs in zip(made[:4], live[:4], strict=True):
        assert dict(ours.losses) == pytest.approx(dict(theirs.losses), rel=1e-3)
    assert measured.teacher_scores == measured_live.teacher_scores
    assert (measured_live.guided_by, measured.guided_by) == ("live", "kept")
    with pytest.warns(UserWarning, match="runs in every step"):
        small, _ = run(within(setup, 2000), "small")
    assert [one.losses for one in small] == [one.losses for one in live]


def test_a_run_that_goes_on_otherwise_says_so(setup: Setup) -> None:
    trial = TrialConfig(options=OPTIONS, epochs=5.0, learning_rate=1e-3)
    asked = iter([False] * 5 + [True] * 99)
    live = setup.model_copy(update={"teacher_cache": None})
    with pytest.raises(Stopped, match="at step 6"):
        list(compress.compress(trial, live, upkeep=Upkeep(stop_requested=lambda: next(asked))))
    with pytest.warns(UserWarning, match="began with the teacher's outputs live and goes on with them kept"):
        *_, last = compress.compress(trial, setup)
    assert isinstance(last, Measurement)
    assert last.guided_by == "live then kept"
