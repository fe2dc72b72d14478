"""A driver for test_autoscaling: asks for what a trial asks for, and says which nodes come and go.

Usage: trial_shaped.py ADDRESS SECONDS. Prints one JSON object. SECONDS: to wait for a node.
"""

from __future__ import annotations

import json
import sys
import time

import ray
from ray.util.placement_group import placement_group, remove_placement_group

GONE_SECONDS = 90


def kinds() -> list[str]:
    """Node types that are up, by the label that Ray gives their nodes."""
    return sorted(node["Labels"].get("ray.io/node-group", "head") for node in ray.nodes() if node["Alive"])


@ray.remote(num_cpus=0, resources={"driver": 0.01})
def at_head() -> str:
    return ray.get_runtime_context().get_node_id()


@ray.remote(num_cpus=1, num_gpus=1)
def train() -> str:
    return ray.get_runtime_context().get_node_id()


def main(address: str, seconds: float) -> None:
    ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    seen: dict[str, object] = {"before": kinds()}
    head = ray.get(at_head.remote(), timeout=300)

    group = placement_group([{"CPU": 1, "GPU": 1}])
    started = time.monotonic()
    ray.get(group.ready(), timeout=seconds)
    seen["up_s"] = time.monotonic() - started
    seen["during"] = kinds()
    remove_placement_group(group)
    seen["trained_on_head"] = ray.get(train.remote(), timeout=300) == head

    started = time.monotonic()
    while len(kinds()) > 1 and time.monotonic() - started < GONE_SECONDS:
        time.sleep(0.5)
    seen["down_s"] = time.monotonic() - started
    seen["after"] = kinds()
    print(json.dumps(seen))


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
