"""What must hold for a RayJob of KubeRay: fields that exist, then the rules of the other files.

The fields are those of KubeRay's API reference (ray.io/v1, 1.6) and of Kubernetes' pods, as far as a search
needs them; a field that exists but is not listed is refused all the same, so add it here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from cluster.findings import Finding, Path

Shape = dict[str, Any]
"""Fields of a mapping: a type or several, another shape, a list of one shape; `ANY` is not looked into."""

ANY: Any = object()
TEXT_TO_TEXT: Any = object()
AMOUNTS: Shape = {"requests": ANY, "limits": ANY}
CONTAINER: Shape = {
    "name": str,
    "image": str,
    "env": [{"name": str, "value": str, "valueFrom": ANY}],
    "envFrom": ANY,
    "resources": AMOUNTS,
    "securityContext": ANY,
    "volumeMounts": ANY,
    "ports": ANY,
    "imagePullPolicy": str,
    "command": ANY,
    "args": ANY,
}
POD: Shape = {
    "metadata": {"labels": TEXT_TO_TEXT, "annotations": TEXT_TO_TEXT},
    "spec": {
        "containers": [CONTAINER],
        "serviceAccountName": str,
        "automountServiceAccountToken": bool,
        "terminationGracePeriodSeconds": int,
        "nodeSelector": TEXT_TO_TEXT,
        "tolerations": [{"key": str, "operator": str, "value": str, "effect": str, "tolerationSeconds": int}],
        "affinity": ANY,
        "volumes": ANY,
        "imagePullSecrets": ANY,
        "securityContext": ANY,
        "priorityClassName": str,
    },
}
GROUP: Shape = {
    "groupName": str,
    "replicas": int,
    "minReplicas": int,
    "maxReplicas": int,
    "numOfHosts": int,
    "idleTimeoutSeconds": int,
    "rayStartParams": TEXT_TO_TEXT,
    "template": POD,
}
RAY_JOB: Shape = {
    "apiVersion": str,
    "kind": str,
    "metadata": {"name": str, "namespace": str, "labels": TEXT_TO_TEXT, "annotations": TEXT_TO_TEXT},
    "spec": {
        "entrypoint": str,
        "entrypointResources": str,
        "entrypointNumCpus": (int, float),
        "entrypointNumGpus": (int, float),
        "runtimeEnvYAML": str,
        "metadata": TEXT_TO_TEXT,
        "backoffLimit": int,
        "activeDeadlineSeconds": int,
        "shutdownAfterJobFinishes": bool,
        "ttlSecondsAfterFinished": int,
        "submissionMode": str,
        "submitterConfig": {"backoffLimit": int},
        "submitterPodTemplate": POD,
        "suspend": bool,
        "rayClusterSpec": {
            "rayVersion": str,
            "authOptions": {"mode": str, "secretName": str, "enableK8sTokenAuth": bool},
            "enableInTreeAutoscaling": bool,
            "autoscalerOptions": {
                "version": str,
                "idleTimeoutSeconds": int,
                "upscalingMode": str,
                "resources": AMOUNTS,
                "image": str,
                "imagePullPolicy": str,
                "env": ANY,
                "envFrom": ANY,
                "volumeMounts": ANY,
                "securityContext": ANY,
            },
            "headGroupSpec": {
                "serviceType": str,
                "headService": ANY,
                "enableIngress": bool,
                "rayStartParams": TEXT_TO_TEXT,
                "template": POD,
            },
            "workerGroupSpecs": [GROUP],
        },
    },
}


def rules(documents: list[dict[str, Any]]) -> Iterator[Finding]:
    """What is wrong with a RayJob and what stands beside it.

    Args:
        documents: of the file.
    """
    kinds = [document.get("kind") for document in documents]
    if kinds.count("RayJob") != 1:
        yield Finding((0,), "one document must have kind: RayJob")
        return
    at = kinds.index("RayJob")
    job = documents[at]
    if job.get("apiVersion") != "ray.io/v1":
        yield Finding((at, "apiVersion"), "a RayJob has apiVersion: ray.io/v1")
    shapes = list(_shape(job, RAY_JOB, (at,)))
    yield from shapes
    if not shapes:
        for where, text in _own(job["spec"].get("rayClusterSpec") or {}):
            yield Finding((at, "spec", "rayClusterSpec", *where), text)
        if not job["spec"].get("entrypoint"):
            yield Finding((at, "spec"), "no entrypoint: the search to run")
        if not job["spec"].get("shutdownAfterJobFinishes"):
            yield Finding((at, "spec"), "shutdownAfterJobFinishes: true, or the cluster outlives its search")
    if "NetworkPolicy" not in kinds:
        yield Finding((at,), "no NetworkPolicy: every pod of the cluster reaches Ray")


def _shape(value: Any, shape: Any, where: Path) -> Iterator[Finding]:
    """Fields that do not exist, and values of the wrong type."""
    from cofi_tune.data.names import closest

    if shape is ANY:
        return
    if shape is TEXT_TO_TEXT:
        wrong = (
            next((k for k, v in value.items() if not isinstance(v, str)), None)
            if isinstance(value, dict)
            else ""
        )
        if wrong is not None:
            yield Finding(
                where, f"{where[-1]} maps text to text; write quotes around numbers and true, false"
            )
    elif isinstance(shape, dict):
        if not isinstance(value, dict):
            yield Finding(where, f"{where[-1]} has fields: {', '.join(shape)}")
            return
        for key, child in value.items():
            if key in shape:
                yield from _shape(child, shape[key], (*where, key))
            else:
                near = closest(str(key), shape)
                hint = f"; did you mean {near}?" if near else ""
                yield Finding((*where, key), f"unknown field {key}{hint}")
    elif isinstance(shape, list):
        if not isinstance(value, list):
            yield Finding(where, f"{where[-1]} is a list")
            return
        for position, child in enumerate(value):
            yield from _shape(child, shape[0], (*where, position))
    elif not isinstance(value, shape) or (isinstance(value, bool) and shape is not bool):
        names = " or ".join(one.__name__ for one in (shape if isinstance(shape, tuple) else (shape,)))
        yield Finding(where, f"{where[-1]} is of type {names}, not {value!r}")


def _own(cluster: dict[str, Any]) -> Iterator[Finding]:
    if (cluster.get("authOptions") or {}).get("mode") != "token":
        yield Finding(("authOptions",), "authOptions.mode: token, or who reaches the head, owns it")
    head = cluster.get("headGroupSpec") or {}
    params = head.get("rayStartParams") or {}
    for key in ("num-cpus", "num-gpus"):
        if params.get(key) != "0":
            yield Finding(("headGroupSpec", "rayStartParams"), f'the head could run trials: write {key}: "0"')
    if "driver" not in _resources(params.get("resources", "")):
        text = 'no driver resource: write resources: \'"{\\"driver\\": 1000, \\"latency_bench\\": 1}"\''
        yield Finding(("headGroupSpec", "rayStartParams"), text)
    if head.get("serviceType", "ClusterIP") != "ClusterIP" or head.get("enableIngress"):
        yield Finding(
            ("headGroupSpec",), "the head is open to the outside: serviceType: ClusterIP, and no ingress"
        )
    groups = cluster.get("workerGroupSpecs") or []
    if not groups:
        yield Finding(("workerGroupSpecs",), "no workers: trials have no place")
    yield from _disks(head, ("headGroupSpec",))
    for at, group in enumerate(groups):
        where = ("workerGroupSpecs", at)
        yield from _disks(group, where)
        low, high = group.get("minReplicas", 0), group.get("maxReplicas", 0)
        if not 0 <= low <= high or high == 0:
            yield Finding(where, f"minReplicas is {low} and maxReplicas {high}: 0 or more, and at least 1")


def _resources(text: str) -> dict[str, Any]:
    """Ray's resources as KubeRay wants them written: JSON in quotes, whose own quotes are escaped."""
    try:
        found = json.loads(json.loads(text))
    except (ValueError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}


def _disks(group: dict[str, Any], where: Path) -> Iterator[Finding]:
    for container in ((group.get("template") or {}).get("spec") or {}).get("containers") or [{}]:
        if "ephemeral-storage" not in ((container.get("resources") or {}).get("requests") or {}):
            yield Finding(where, "no disk: resources.requests.ephemeral-storage, 100Gi or more")
