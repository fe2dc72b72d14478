"""What a Ray cluster has, and whether a search fits on it: asked of Ray, once the search has joined it."""

from __future__ import annotations

import contextlib
import re
import socket
from collections.abc import Callable, Iterator, Mapping
from typing import Literal, NamedTuple

from cofi_tune.config import StudyConfig
from cofi_tune.machine import workers_on_gpus
from cofi_tune.memory import shortage, trial_bytes

DRIVER = "driver"
"""Resource of a node for processes that only wait; where no node declares it, they take of the CPUs."""
LATENCY_BENCH = "latency_bench"
"""Resource of a node that trains nothing, on which models are timed one at a time."""
DRIVER_SHARE = 0.01
"""Of a trial that only waits for its workers; 0 would be refused."""
MANY = 10**6
"""Nodes of a type without a limit."""
CONNECT_SECONDS = 5.0
NODE_GROUP = "ray.io/node-group"
"""Label of the nodes that an autoscaler has started."""

Resources = Mapping[str, float]
Timing = Literal["alone", "crowd", "bench"]
"""See `Setup.timing`."""


class Cluster(NamedTuple):
    """Nodes that are there, and those that may come."""

    nodes: tuple[Resources, ...]
    most: tuple[tuple[Resources, int], ...] = ()
    """Of every node type of an autoscaler, as far as it has told: its resources, how many there may be."""
    grows: bool = False
    """Whether an autoscaler may add nodes, known or not."""

    def declares(self, resource: str) -> bool:
        """Whether any node has it, or may."""
        return any(node.get(resource) for node in (*self.nodes, *(node for node, _ in self.most)))

    def trials_at_once(self, config: StudyConfig, worker_bytes: int = 0) -> float:
        """How many trials of a study run at one time, on what is there or, if that is more, may be.

        Args:
            config: of the study.
            worker_bytes: memory that each worker needs, if that is to count.
        """
        there = [(node, 1) for node in self.nodes]
        return max(self._trials_on(config, nodes, worker_bytes) for nodes in (there, [*self.most]))

    def _trials_on(self, config: StudyConfig, nodes: list[tuple[Resources, int]], worker_bytes: int) -> float:
        cpus, gpus = config.cpus_per_worker, config.gpus_per_worker
        per_trial = max(1, config.workers_per_trial)
        fit = ((_workers_on(node, cpus, gpus, worker_bytes), number) for node, number in nodes if number)
        workers = sum(number * on_node for on_node, number in fit)
        waiting = DRIVER_SHARE if config.workers_per_trial and not self.declares(DRIVER) else 0.0
        all_cpus = sum(number * node.get("CPU", 0.0) for node, number in nodes if number)
        return min(workers // per_trial, all_cpus // (per_trial * cpus + waiting))


@contextlib.contextmanager
def joining(address: str | None) -> Iterator[None]:
    """Inside, a process joins the cluster at an address; None: it starts a Ray of its own.

    Raises:
        OSError: none answers there, it does not let this process in, or Ray does not start; with the remedy.
    """
    import ray

    try:
        yield
    except Exception as error:  # of a Ray that does not start: whatever its services raise
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        if address is None:
            raise OSError(
                f"Ray does not start on this machine ({line}); it may lack memory, room in /tmp or time: "
                "with less running beside it, the same command goes on"
            ) from error
        refusals = (ray.exceptions.AuthenticationError, ray.exceptions.RaySystemError)
        if not isinstance(error, (OSError, *refusals)):
            raise
        raise OSError(
            f"--address {address}: no Ray cluster lets this process in ({line}); run the command on a node "
            "of it, with the cluster's token where it asks for one (RAY_AUTH_MODE=token, RAY_AUTH_TOKEN_PATH)"
        ) from error


def check_address(address: str) -> None:
    """Refuse an `--address` that a search cannot join.

    Raises:
        ValueError: with what to give instead.
    """
    if address.startswith("ray://"):
        # Ray Client would run Tune, and with it the study, in a process of the cluster without our files.
        host = re.sub(r"^ray://|:[0-9]+$", "", address) or "HOST"
        raise ValueError(
            f"--address {address}: a search drives its trials from a node of the cluster; submit it: "
            f"ray job submit --address http://{host}:8265 -- python -m cofi_tune.search --address auto ..."
        )
    if address != "auto" and not re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[\w.-]+):[0-9]{1,5}", address):
        raise ValueError(f"--address {address}: give auto, or HOST:PORT of the cluster's head (port 6379)")


def check_answers(address: str) -> None:
    """Refuse an address where nothing listens, before anything slow: Ray itself would ask there for ever.

    Raises:
        OSError: with the remedy.
    """
    from ray._private import services

    with joining(address):
        place = services.canonicalize_bootstrap_address_or_die(address) if address == "auto" else address
        host, _, port = place.rpartition(":")
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()


def ask() -> Cluster:
    """What the cluster has that this process has joined."""
    import ray

    alive = [node for node in ray.nodes() if node["Alive"]]
    kinds: tuple[tuple[Resources, int], ...] = ()
    # How many nodes of which type an autoscaler may add is told by none of Ray's public calls.
    with contextlib.suppress(Exception):
        told = ray._private.state.state.get_cluster_config()
        groups = told.node_group_configs if told is not None else ()
        kinds = tuple((dict(g.resources), MANY if g.max_count < 0 else g.max_count) for g in groups)
    grows = bool(kinds) or any(NODE_GROUP in (node.get("Labels") or {}) for node in alive)
    return Cluster(tuple(node["Resources"] for node in alive), kinds, grows)


def where_timed(config: StudyConfig, cluster: Cluster | None, note: Callable[[str], None]) -> Timing:
    """Where the models of a study are timed, so that their times can be compared; see `Setup.timing`.

    Args:
        config: of the study, its `concurrency` known.
        cluster: where it runs; None: a Ray of its own on this machine.
        note: told what the user may want to change.
    """
    if cluster is not None and cluster.declares(LATENCY_BENCH):
        return "bench"
    if config.gpus_per_worker >= 1 or (cluster is None and config.concurrency == 1):
        return "alone"
    note(
        "models are timed beside running trials, each in turn with the dense model: speedups hold within "
        "their quartiles, and share no front with those timed alone"
    )
    return "crowd"


def fitted(config: StudyConfig, cluster: Cluster, note: Callable[[str], None]) -> StudyConfig:
    """The study with as many trials at a time as the cluster holds, where the user left that open.

    Args:
        config: of the study; a `concurrency` of 0 is open.
        cluster: where it is to run.
        note: told what the user may want to change.

    Raises:
        ValueError: not even one trial could ever run there, which Ray would wait for without a word.
    """
    fit = cluster.trials_at_once(config)
    known = bool(cluster.most) or not cluster.grows
    if known and fit < 1:
        raise ValueError(
            f"--address: a trial needs {needs(config)}, and this cluster never has that free "
            f"({_shown(cluster)}); lower --workers-per-trial, --cpus-per-worker or --gpus-per-worker, or add "
            "nodes"
        )
    if config.concurrency == 0:
        at_once = max(1, min(config.trials, int(fit)))
        more = "" if known else "; what its autoscaler may add is not known: for more, give --concurrency"
        note(f"trials at a time: {at_once}, on {_shown(cluster)}{more}")
        return config.model_copy(update={"concurrency": at_once})
    if known and fit < config.concurrency:
        note(f"--concurrency {config.concurrency}: this cluster runs {fit:g} at a time; the others wait")
    return config


def fitted_to_memory(
    config: StudyConfig, cluster: Cluster, worker_bytes: int, note: Callable[[str], None]
) -> StudyConfig:
    """The study with no more trials at a time than the memory of the cluster's nodes holds, one at least.

    Args:
        config: of the study, its `concurrency` known.
        cluster: where it is to run.
        worker_bytes: memory that each worker needs.
        note: told if fewer run.
    """
    fit = int(cluster.trials_at_once(config, worker_bytes))
    known = bool(cluster.most) or not cluster.grows
    if not known or fit >= min(config.concurrency, cluster.trials_at_once(config)):
        return config
    usable = sum(node.get("memory", 0.0) for node in cluster.nodes)
    each = trial_bytes(config, worker_bytes)
    note(shortage(fit, config.concurrency, each, int(usable)))
    return config.model_copy(update={"concurrency": max(1, fit)})


def needs(config: StudyConfig) -> str:
    """What a trial takes, in words."""
    workers = max(1, config.workers_per_trial)
    gpus = f" and {config.gpus_per_worker:g} GPUs" if config.gpus_per_worker else ""
    return f"{workers} processes with {config.cpus_per_worker} CPUs{gpus} each"


def _workers_on(node: Resources, cpus: int, gpus: float, num_bytes: int) -> int:
    fit = int(node.get("CPU", 0.0) // cpus)
    if gpus:
        fit = min(fit, workers_on_gpus(int(node.get("GPU", 0.0)), gpus))
    return min(fit, int(node["memory"] // num_bytes)) if num_bytes and "memory" in node else fit


def _shown(cluster: Cluster) -> str:
    """Its nodes in a few words."""
    cpus, gpus = (sum(node.get(name, 0.0) for node in cluster.nodes) for name in ("CPU", "GPU"))
    nodes = f"{len(cluster.nodes)} nodes with {cpus:g} CPUs and {gpus:g} GPUs in all"
    if not cluster.most:
        return nodes
    kinds = (
        f"{number:g} of {r.get('CPU', 0):g} CPUs, {r.get('GPU', 0):g} GPUs" for r, number in cluster.most
    )
    return f"{nodes}, at most {' + '.join(kinds)}"
