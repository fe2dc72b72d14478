"""Links of a chain, trained: one begins where its parent ended pruning, wherever either was interrupted."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from cofi_tune import checkpoint, compress
from cofi_tune.config import Setup, TrialConfig
from cofi_tune.data.encoded import EncodedTask
from cofi_tune.modeling_cofi import CofiForSequenceClassification
from cofi_tune.records import Latency, Measurement, Progress, Stopped
from cofi_tune.timed import Timed
from cofi_tune.upkeep import Upkeep

OPTIONS = {"target_sparsity": 0.4, "mask_travel": 25.0, "warmup_fraction": 0.5, "recover_fraction": 0.3}
FIRST = TrialConfig(options=OPTIONS, epochs=24, learning_rate=1e-3)
CHAIN = (0.4, 0.6, 0.75)
PARENT, LINK, LAST = FIRST.links(CHAIN, 0.5)
Run = tuple[list[Progress], Measurement]


def timer(model: CofiForSequenceClassification, dense: Any, dev: Any, setup: Setup) -> Timed:
    return Timed((Latency("throughput", 1.0, 0.5, 2.0, 2.0, 2.0, 9, 32, 64),), {"device": "cpu"})


def run(trial: TrialConfig, setup: Setup, stop_after: int | None = None) -> Run:
    """All reports and the measurement; with an interruption after so many steps, told by `Stopped`."""
    steps = 0

    def stop() -> bool:
        nonlocal steps
        steps += 1
        return steps == stop_after

    events = list(compress.compress(trial, setup, upkeep=Upkeep(1e9, stop), timer=timer))
    assert isinstance(events[-1], Measurement)
    return [one for one in events if isinstance(one, Progress)], events[-1]


def resumed(trial: TrialConfig, setup: Setup, stop_after: int) -> Run:
    with pytest.raises(Stopped, match="stopped on request"):
        run(trial, setup, stop_after)
    return run(trial, setup)


def place(parent: Setup, name: str, hands_on: bool = False) -> Setup:
    output = parent.output.parent / name
    return parent.model_copy(update={"parent": parent.output, "output": output, "hands_on": hands_on})


def weights(setup: Setup) -> bytes:
    return (setup.output / "model" / "model.safetensors").read_bytes()


def curve(found: Run) -> list[Any]:
    return [(one.step, one.phase, one.losses, one.target_sparsity, one.selection_score) for one in found[0]]


@pytest.fixture(scope="module")
def parent(
    toy_on_disk: EncodedTask,
    make_model: Callable[..., CofiForSequenceClassification],
    trained_state: dict[str, torch.Tensor],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Setup, Run]:
    """The first trial of a chain, to be read only."""
    directory = tmp_path_factory.mktemp("chain")
    dense = make_model(layers=2)
    dense.load_state_dict(trained_state)
    dense.save_pretrained(directory / "teacher")
    setup = Setup(
        data=toy_on_disk.directory,
        teacher=directory / "teacher",
        output=directory / "0",
        num_threads=1,
        hands_on=True,
    )
    return setup, run(PARENT, setup)


@pytest.fixture(scope="module")
def link(parent: tuple[Setup, Run]) -> tuple[Setup, Run]:
    """The second, undisturbed."""
    setup = place(parent[0], "1", hands_on=True)
    return setup, run(LINK, setup)


def test_a_link_begins_with_its_parents_gates_weights_and_multipliers(parent: tuple[Setup, Run]) -> None:
    setup, (reports, _) = parent
    [kept] = (setup.output / checkpoint.LINK).iterdir()
    last = [one for one in reports if one.phase == "prune"][-1]
    assert kept.name == checkpoint.NAME.format(last.step)
    with pytest.raises(checkpoint.Unusable, match="another run"):
        checkpoint.load(kept, {})


def test_its_ramp_begins_at_the_parents_target_and_its_counters_at_0(
    parent: tuple[Setup, Run], link: tuple[Setup, Run]
) -> None:
    before, after = parent[1], link[1]
    assert after[0][0].step < before[0][-1].step
    assert after[0][-1].num_steps == before[0][-1].num_steps / 2
    targets = [one.target_sparsity for one in after[0] if one.phase == "prune"]
    assert targets == sorted(targets)
    assert 0.4 < targets[0] < targets[-1] == 0.6
    first, last = after[0][0], [one for one in before[0] if one.phase == "prune"][-1]
    assert first.expected_sparsity == pytest.approx(last.expected_sparsity, abs=0.1), "not from open gates"
    assert before[1].sparsity >= 0.4
    assert 0.6 <= after[1].sparsity < 0.7


def test_interrupted_in_its_midst_it_gives_the_same_curve_and_weights(
    parent: tuple[Setup, Run], link: tuple[Setup, Run]
) -> None:
    for stop_after in (5, link[1][0][-1].num_steps - 2):
        setup = place(parent[0], f"1-{stop_after}", hands_on=True)
        found = resumed(LINK, setup, stop_after)
        whole = curve(link[1])
        assert curve(found) == whole[len(whole) - len(found[0]) :]
        assert weights(setup) == weights(link[0])


def test_an_interrupted_parent_hands_on_the_same(parent: tuple[Setup, Run], link: tuple[Setup, Run]) -> None:
    prune = [one.step for one in parent[1][0] if one.phase == "prune"][-1]
    for stop_after in (prune, prune + 3):  # as the state is written, and behind it
        again = parent[0].model_copy(update={"output": parent[0].output.with_name(f"0-{stop_after}")})
        resumed(PARENT, again, stop_after)
        child = place(again, f"1-of-{stop_after}", hands_on=True)
        assert curve(run(LINK, child)) == curve(link[1])
        assert weights(child) == weights(link[0])


def test_the_last_link_leaves_nothing(link: tuple[Setup, Run]) -> None:
    setup = place(link[0], "2")
    _, measured = run(LAST, setup)
    assert measured.sparsity >= 0.75
    assert not (setup.output / checkpoint.LINK).exists()


def test_without_its_parents_state_it_ends(parent: tuple[Setup, Run], tmp_path: Path) -> None:
    with pytest.raises(Stopped, match="no state to begin with") as ended:
        run(LINK, parent[0].model_copy(update={"parent": tmp_path, "output": tmp_path / "1"}))
    assert ended.value.reason == "parent_lost"
    shutil.copytree(parent[0].output / checkpoint.LINK, tmp_path / checkpoint.LINK)
    other = PARENT.model_copy(update={"seed": 3}).links(CHAIN, 0.5)[1]
    with pytest.warns(UserWarning, match="of another run: trial.seed"), pytest.raises(Stopped):
        run(other, parent[0].model_copy(update={"parent": tmp_path, "output": tmp_path / "1"}))


def test_a_link_is_half_as_long_and_its_gates_travel_as_far() -> None:
    assert [one.reached for one in (PARENT, LINK, LAST)] == [(), CHAIN[:1], CHAIN[:2]]
    assert [one.options["target_sparsity"] for one in (PARENT, LINK, LAST)] == [*CHAIN]
    assert [one.epochs for one in (PARENT, LINK, LAST)] == [24, 12, 12]
    assert FIRST.model_copy(update={"finetune_epochs": 2.0}).link(0.6, 1.0).finetune_epochs == 0.0
