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


def test_there_are_the_two_spaces() -> None:
    assert {"cofi", "smoke"} <= set(SPACES)


@pytest.mark.parametrize("name", SPACES)
def test_draws_are_configurations_and_reach_every_choice(name: str) -> None:
    reached: dict[str, set[Any]] = {}
    choices: dict[str, set[Any]] = {}
    for trial, proposal in propose(search_spaces.load(name, "cola"), [], DRAWS):
        accept(proposal)
        assert set(trial.params) <= set(proposal), "a value is asked for under its name in the proposal"
        for parameter, distribution in trial.distributions.items():
            if isinstance(distribution, optuna.distributions.CategoricalDistribution):
                choices[parameter] = set(distribution.choices)
                reached.setdefault(parameter, set()).add(trial.params[parameter])
    assert reached == choices


@pytest.mark.parametrize("name", SPACES)
def test_points_lie_in_the_space(name: str) -> None:
    space = search_spaces.load(name, "cola")
    points = [dict(point) for point in space.points]
    assert points
    for point, (trial, proposal) in zip(points, propose(space, points, 0), strict=True):
        assert trial.params == point, "every parameter is given, and within its range"
        accept(proposal)


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
