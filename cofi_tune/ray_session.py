"""The Ray that a search runs on: one of its own on this machine, or a cluster that it joins."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import threading
from collections.abc import Iterator, Mapping
from concurrent import futures
from typing import Any

import ray
from ray.tune.execution import class_cache

from cofi_tune.cluster import joining
from cofi_tune.config import StudyConfig

CREDENTIALS = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SECURITY_TOKEN", "AWS_SESSION_TOKEN"}
RAY_ITSELF = {"gcs_server", "raylet"}

ENVIRONMENT = {
    # Threads that wait in a loop for a core that another process has: 25 times slower, measured with as many
    # threads as cores and a busy machine. Read when torch is loaded.
    "OMP_WAIT_POLICY": "PASSIVE",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # whose box ignores verbose=0
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # The study on disk is the truth: no loggers, no snapshots every few seconds, our own handler of Ctrl-C.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    # A report costs at most this long instead of 2 s.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    "RAY_TRAIN_METRICS_ENABLED": "0",
}


@contextlib.contextmanager
def ray_started(config: StudyConfig, address: str | None) -> Iterator[None]:
    """A Ray of our own on this machine, stopped at the end; or the cluster at `address`. One is enough."""
    if ray.is_initialized():
        yield
        return
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    threads = _threads(config)
    if address is None:
        # Watching for a node that is about to be taken away costs a process; here there is one node.
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    # What they have to say of a trial, or of their own files on a full disk, is said in our words.
    for name in ("ray", "ray.tune", "ray.train", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    settings: dict[str, Any]
    if address is not None:
        settings = {"address": address, "runtime_env": {"env_vars": ENVIRONMENT | threads}}
    else:
        settings = {
            "address": "local",
            "num_cpus": math.ceil(cpus_needed(config)) + 1,
            # Ray Train frees the workers of a trial that dies by asking the dashboard's state service.
            "include_dashboard": config.workers_per_trial > 0,
            "object_store_memory": 256 * 2**20,
        }
    # Tune hands them to its trials by way of Ray's logs, which others can read. On this machine processes
    # inherit them; each node of a cluster has its own.
    class_cache.ENV_VARS_TO_PROPAGATE.difference_update(CREDENTIALS)
    over = threading.Event()

    def live(started: futures.Future[None]) -> None:
        try:
            with _environment(threads if address is None else {}):
                ray.init(**settings, log_to_driver=False, logging_level=logging.ERROR)
        except BaseException as error:
            started.set_exception(error)
            return
        started.set_result(None)
        over.wait()

    def start() -> None:
        # In the main thread Ray would take SIGTERM for itself, and die of it; its processes die with the
        # thread that has started them.
        started: futures.Future[None] = futures.Future()
        threading.Thread(target=live, args=(started,), daemon=True).start()
        started.result()

    try:
        with joining(address):
            try:
                start()
            except Exception as error:
                if address is not None or getattr(error, "errno", None):
                    raise
                # On a busy machine it may have missed one of its own limits, which nobody can change.
                ray.shutdown()
                start()
        yield
    finally:
        ray.shutdown()
        over.set()


def _threads(config: StudyConfig) -> dict[str, str]:
    """What sizes a worker's pools of threads as it starts: its CPUs, whatever this shell or node has set.

    Ray leaves a number that is set as it is, and sets 1 where less than a CPU is asked for.
    """
    return {"OMP_NUM_THREADS": str(config.cpus_per_worker)}


@contextlib.contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Inside, processes are started with these environment variables."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def cpus_needed(config: StudyConfig) -> int:
    """Threads that the trials use at one time."""
    return config.concurrency * max(1, config.workers_per_trial) * config.cpus_per_worker


def own_ray_died() -> bool:
    """Whether the Ray that this process has started is gone; one that it has only joined never is."""
    node = ray._private.worker._global_node
    return node is not None and any(name in RAY_ITSELF for name, _ in node.dead_processes())
