"""What a group of Ray Train workers reports, on its way to Tune.

Ray's own way (`TuneReportCallback`) has Tune's actor put each report into a queue of one place that it alone
empties. Where a driver is slow to ask for a trial's last report, the group's end takes that place, and the
actor waits for itself for ever. Here the trial's own thread says every report, in order, and then ends.
"""

from __future__ import annotations

import threading
from concurrent import futures
from typing import Any

import ray
from ray import tune
from ray.train import UserCallback
from ray.util.queue import Queue
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy


class GroupReports(UserCallback):
    """Takes the first worker's reports where the group is controlled, and keeps them for the trial."""

    def __init__(self) -> None:
        """In a trial: what is kept dies with the trial's node, and with no other."""
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self._queue = Queue(actor_options={"num_cpus": 0, "scheduling_strategy": here})

    def after_report(self, run_context: object, metrics: list[dict[str, Any]], checkpoint: object) -> None:
        """Called by Ray Train once all workers have reported."""
        self._queue.put(metrics[0])

    def pass_on(self, trainer: Any) -> None:
        """Let a trainer, which has this as a callback, run, and tell Tune every report.

        Args:
            trainer: a `ray.train.torch.TorchTrainer`.

        Raises:
            BaseException: what its `fit` raised, once all reports before that are told.
        """
        done: futures.Future[None] = futures.Future()

        def fit() -> None:
            try:
                trainer.fit()
                done.set_result(None)
            except BaseException as error:
                done.set_exception(error)
            finally:
                self._queue.put(None)

        threading.Thread(target=fit, daemon=True).start()
        while (report := self._queue.get()) is not None:
            tune.report(report)
        done.result()
