"""Times of a structure are taken once, and reused only where they are what would be measured again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cofi_tune import timed
from cofi_tune.config import Setup
from cofi_tune.data.encoded import EncodedTask
from cofi_tune.modeling_cofi import CofiForSequenceClassification
from cofi_tune.records import Latency
from cofi_tune.timed import Timed

MakeModel = Callable[..., CofiForSequenceClassification]
CONTRACT = {"task": "toy", "teacher": "t", "scenario": "throughput", "alone": "yes"}


class Watch:
    """A timer that says each time something else."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, model: Any, dense: Any, dev: Any, setup: Setup) -> Timed:
        self.calls += 1
        speedup = float(self.calls)
        one = Latency("throughput", 1.0, 1 / speedup, speedup, speedup, speedup, 9, 32, 64)
        return Timed((one,), {"device": setup.device})


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
def ask(watch: Watch, make_model: MakeModel, toy: EncodedTask, tmp_path: Path) -> Callable[..., Timed]:
    dense = make_model(layers=3)

    def asked(trial: str, model: Any, contract: dict[str, Any] = CONTRACT, **changes: Any) -> Timed:
        values = {"data": tmp_path, "teacher": tmp_path, "output": tmp_path / trial, "timed": tmp_path / "t"}
        setup = Setup(**{**values, **changes})
        return timed.once(watch, model, dense, toy.splits["dev"], setup, contract)

    return asked


def test_other_weights_of_the_same_sizes_are_not_timed_again(
    ask: Any, watch: Watch, make_model: MakeModel
) -> None:
    first = ask("s-0", make_model(layers=2, seed=1))
    second = ask("s-1", make_model(layers=2, seed=2))
    assert watch.calls == 1
    assert second.latencies == first.latencies
    assert second.made_on == first.made_on
    assert (first.timed_as, second.timed_as) == (None, "s-0")
    assert ask("s-0", make_model(layers=2)).timed_as is None, "a trial that goes on has its own times"
    assert ask("s-2", make_model(layers=3)).timed_as is None
    assert watch.calls == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"timing": "crowd"},
        {"timing": "bench"},
        {"timed": None},
        {"scenarios": ("throughput", "latency", "reference")},
        {"scenario": "latency"},
        {"contract": {**CONTRACT, "teacher": "another"}},
        {"contract": {**CONTRACT, "alone": "no"}},
    ],
)
def test_under_other_conditions_it_is_timed_again(
    ask: Any, watch: Watch, make_model: MakeModel, changes: dict[str, Any]
) -> None:
    model = make_model(layers=2)
    ask("s-0", model)
    assert ask("s-1", model, **changes).timed_as is None
    assert watch.calls == 2


def test_in_a_crowd_nothing_is_kept(ask: Any, watch: Watch, make_model: MakeModel) -> None:
    for trial in ("s-0", "s-1"):
        assert ask(trial, make_model(layers=2), timing="crowd").timed_as is None
    assert watch.calls == 2


def test_another_machine_and_another_number_of_threads_are_other_conditions(
    ask: Any, watch: Watch, make_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model(layers=2)
    ask("s-0", model)
    with monkeypatch.context() as patch:
        patch.setattr(timed.platform, "node", lambda: "elsewhere")
        assert ask("s-1", model).timed_as is None
    with monkeypatch.context() as patch:
        patch.setattr(timed.torch, "get_num_threads", lambda: 17)
        assert ask("s-2", model).timed_as is None
    assert ask("s-3", model).timed_as == "s-0"
    assert watch.calls == 3


@pytest.mark.parametrize("content", [b"", b"{}", b'{"about": 1', b"[]"])
def test_what_is_torn_is_taken_again(
    ask: Any, watch: Watch, make_model: MakeModel, tmp_path: Path, content: bytes
) -> None:
    model = make_model(layers=2)
    ask("s-0", model)
    [path] = (tmp_path / "t").iterdir()
    path.write_bytes(content)
    assert ask("s-1", model).timed_as is None
    assert ask("s-2", model).timed_as == "s-1"
    assert watch.calls == 2
