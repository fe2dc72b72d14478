"""Every space proposes only what its method takes, and can propose all that it says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest

import search_spaces
from cofi_tune import methods
from cofi_tune.config import TrialConfig, build

DRAWS = 50
SPACES = search_spaces.names()
TASKS = ("rte", "sst2", "my-own")
"""Spaces may depend on the task: a small one, a large one, an unknown one."""


def propose(space: search_spaces.Loaded, points: list[dict[str, Any]], draws: int) -> list[Any]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for point in points:
        study.enqueue_trial(point)
    made = []
    for _ in range(len(points) + draws):
        trial = study.ask()
        made.append((trial, dict(space.space(trial))))
    return made


def accept(proposal: dict[str, Any]) -> None:
    config = TrialConfig.from_proposal(proposal, base_learning_rate=2e-5, epochs=3, seed=0)
    build(methods.load(config.method).Config, config.options)


def test_there_are_the_four_spaces() -> None:
    assert {"cofi", "cofi_small", "reference", "smoke"} <= set(SPACES)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("name", SPACES)
def test_draws_are_configurations_and_reach_every_choice(name: str, task: str) -> None:
    reached: dict[str, set[Any]] = {}
    choices: dict[str, set[Any]] = {}
    for trial, proposal in propose(search_spaces.load(name, task), [], DRAWS):
        accept(proposal)
        assert set(trial.params) <= set(proposal), "a value is asked for under its name in the proposal"
        for parameter, distribution in trial.distributions.items():
            if isinstance(distribution, optuna.distributions.CategoricalDistribution):
                choices[parameter] = set(distribution.choices)
                reached.setdefault(parameter, set()).add(trial.params[parameter])
    assert reached == choices


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("name", SPACES)
def test_points_lie_in_the_space(name: str, task: str) -> None:
    space = search_spaces.load(name, task)
    points = [dict(point) for point in space.points]
    assert points
    for point, (trial, proposal) in zip(points, propose(space, points, 0), strict=True):
        assert trial.params == point, "every parameter is given, and within its range"
        accept(proposal)


@pytest.mark.parametrize("name", SPACES)
def test_every_range_says_where_it_comes_from(name: str) -> None:
    lines = (Path(search_spaces.__file__).parent / f"{name}.py").read_text().splitlines()
    asks = [number for number, line in enumerate(lines) if "draw.suggest_" in line]
    assert asks
    for number in asks:
        assert lines[number - 1].lstrip().startswith("# "), lines[number]


@pytest.mark.parametrize("name", SPACES)
def test_spaces_are_plain_python(name: str) -> None:
    text = (Path(search_spaces.__file__).parent / f"{name}.py").read_text()
    imports = {
        line.split()[1].split(".")[0] for line in text.splitlines() if line.startswith(("import ", "from "))
    }
    assert imports <= {"__future__", "typing", "search_spaces"}


def test_unknown_name_and_broken_files(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'cofy'; did you mean cofi\?"):
        search_spaces.load("cofy", "cola")
    with pytest.raises(ValueError, match="no such file"):
        search_spaces.load(str(tmp_path / "mine.py"), "cola")
    broken = tmp_path / "mine.py"
    broken.write_text("1 / 0")
    with pytest.raises(ValueError, match="ZeroDivisionError"):
        search_spaces.load(str(broken), "cola")
    broken.write_text("x = 1")
    with pytest.raises(ValueError, match="no function space"):
        search_spaces.load(str(broken), "cola")


def test_own_file_and_what_makes_it_another(tmp_path: Path) -> None:
    own = tmp_path / "mine.py"
    name = "'cofi/target_sparsity'"
    source = f"def space(draw):\n    return {{{name}: draw.suggest_float({name}, .5, .6)}}\n"
    own.write_text(source)
    first = search_spaces.load(str(own), "cola")
    assert first.name == "mine"
    accept(propose(first, [], 1)[0][1])
    own.write_text("# a comment\n" + source)
    assert search_spaces.load(str(own), "cola").digest == first.digest
    own.write_text(source.replace(".6", ".7"))
    assert search_spaces.load(str(own), "cola").digest != first.digest


@pytest.mark.parametrize(
    ("task", "finetune", "prune", "recover", "ramp"), [("rte", 4, 96, 20, 20), ("sst2", 1, 19, 20, 2)]
)
def test_reference_is_the_papers_grid(
    make_model: Any, task: str, finetune: float, prune: float, recover: float, ramp: float
) -> None:
    space = search_spaces.load("reference", task)
    trial, proposal = propose(space, [], 1)[0]
    choices = {name: set(one.choices) for name, one in trial.distributions.items()}
    assert choices["cofi/target_sparsity"] == {0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95}
    assert choices["cofi/layer_mix"] == {0.9, 0.7, 0.5}
    config = TrialConfig.from_proposal(proposal, base_learning_rate=1.0, epochs=3, seed=0)
    ratios = sorted(choices["cofi/recover_learning_rate_ratio"])
    assert [config.learning_rate * ratio for ratio in ratios] == pytest.approx([1e-5, 2e-5, 3e-5])
    assert (config.init, config.seed, config.batch_size) == ("pretrained", 57, 32)
    # In steps, at 10 an epoch, as the method lays them out.
    cofi = methods.load("cofi")
    laid_out = cofi(config, make_model(), 10)
    steps = {phase.name: phase.num_steps for phase in laid_out.phases()}
    assert steps == {"finetune": 10 * finetune, "prune": 10 * prune, "recover": 10 * recover}
    assert laid_out.warmup_steps == 10 * ramp
    assert laid_out.mask_learning_rate == 0.01


def test_small_tasks_have_long_ramps_and_replicates() -> None:
    ranges = propose(search_spaces.load("cofi_small", "rte"), [], 1)[0][0].distributions
    whole = propose(search_spaces.load("cofi", "rte"), [], 1)[0][0].distributions
    assert len(ranges["seed"].choices) == 3
    assert ranges["cofi/warmup_fraction"].high > whole["cofi/warmup_fraction"].high


def test_own_space_may_depend_on_the_task(tmp_path: Path) -> None:
    own = tmp_path / "mine.py"
    own.write_text(
        "def space(draw, task):\n    return {'cofi/target_sparsity': .5 if task == 'rte' else .6}\n"
    )
    found = [propose(search_spaces.load(str(own), task), [], 1)[0][1] for task in ("rte", "cola")]
    assert [one["cofi/target_sparsity"] for one in found] == [0.5, 0.6]
