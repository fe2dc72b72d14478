"""What workers report reaches the driver, in order and to the last, however late it listens."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.ray

STALL_SECONDS = 1.0


@pytest.mark.usefixtures("own_ray")
def test_every_report_is_heard_before_its_trial_ends(tmp_path: Path) -> None:
    from ray import tune

    # Within the test, so that they travel by value.
    def with_workers(config: dict[str, Any]) -> None:
        from cofi_tune.group_reports import GroupReports

        reports = GroupReports()

        class Trainer:
            def fit(self) -> None:
                for number in range(4):
                    reports.after_report(None, [{"number": number}, {"number": -1}], None)
                raise ValueError("the workers' own")

        with pytest.raises(ValueError, match="own"):
            reports.pass_on(Trainer())
        tune.report({"number": 4})

    heard: list[int] = []

    class Slow(tune.Callback):
        def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: Any, **info: Any) -> None:
            heard.append(result["number"])
            time.sleep(STALL_SECONDS)

    run = tune.RunConfig(storage_path=str(tmp_path / "tune"), verbose=0, callbacks=[Slow()])
    [result] = tune.Tuner(tune.with_resources(with_workers, {"CPU": 0.01}), run_config=run).fit()
    assert result.error is None
    assert heard[:5] == [0, 1, 2, 3, 4]
