"""For test_autoscaling: a provider that has no spot node to give."""

from __future__ import annotations

from typing import Any

from ray.autoscaler._private.fake_multi_node.node_provider import FakeMultiNodeProvider
from ray.autoscaler.node_launch_exception import NodeLaunchException
from ray.autoscaler.tags import TAG_RAY_USER_NODE_TYPE


class NoSpot(FakeMultiNodeProvider):
    def create_node_with_resources_and_labels(
        self, node_config: Any, tags: Any, count: Any, resources: Any, labels: Any
    ) -> None:
        if tags[TAG_RAY_USER_NODE_TYPE] == "gpu_spot":
            raise NodeLaunchException("InsufficientInstanceCapacity", "no spot node is to be had", None)
        super().create_node_with_resources_and_labels(node_config, tags, count, resources, labels)
