"""Whether every node of a Ray cluster sees the output: what trials leave on one that does not is lost."""

from __future__ import annotations

import uuid
from pathlib import Path

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

WAIT_SECONDS = 60.0
"""For a node to look."""


def refuse_unshared(output: Path) -> None:
    """Let a task on each node look for a file that is made here; nodes that come later look for themselves.

    Args:
        output: a directory.

    Raises:
        ValueError: some node does not see it; with the remedy.
    """
    nodes = {node["NodeID"]: node["NodeManagerHostname"] for node in ray.nodes() if node["Alive"]}
    if len(nodes) < 2:
        return
    marker = output.absolute() / f".seen-{uuid.uuid4().hex}"
    marker.touch()
    try:
        look = ray.remote(num_cpus=0, max_retries=0)(_sees)
        asked = {
            look.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(
                str(marker)
            ): name
            for node, name in nodes.items()
        }
        done, late = ray.wait([*asked], num_returns=len(asked), timeout=WAIT_SECONDS)
        blind = [asked[reference] for reference in done if not ray.get(reference)]
    finally:
        marker.unlink()
    if blind:
        raise ValueError(
            f"--output {output}: {len(blind)} of {len(nodes)} nodes do not see this directory (such as "
            f"{blind[0]}); give one that all nodes share, or a URL such as s3://bucket/runs"
        )
    if late:
        raise ValueError(
            f"--output {output}: {len(late)} of {len(nodes)} nodes do not answer whether they see it"
        )


def _sees(path: str) -> bool:
    return Path(path).exists()
