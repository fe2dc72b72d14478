"""What must hold for a RayJob of KubeRay: fields that exist, then the rules of the other files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from cluster.findings import Finding, Found, Path
from cluster.kuberay_fields import NETWORK_POLICY, RAY_JOB
from cluster.secret_rules import SECRET_KEYS
from cluster.shapes import differences

DATABASES = ("COFI_STORAGE", "MLFLOW_BACKEND_STORE_URI")
"""Addresses that have a password in them, or will have one soon."""


def rules(documents: list[dict[str, Any]]) -> Iterator[Finding]:
    """What is wrong with a RayJob and what stands beside it.

    Args:
        documents: of the file.
    """
    places: dict[str, int] = {}
    for at, document in enumerate(documents):
        kind = document.get("kind")
        if kind == "Secret":
            text = "a Secret in the file is no secret: `kubectl create secret generic ...`"
            yield Finding((at, "kind"), text)
        elif kind not in ("RayJob", "NetworkPolicy"):
            text = f"kind {kind} is not expected: a file has one RayJob and one NetworkPolicy"
            yield Finding((at, "kind"), text)
        elif kind in places:
            yield Finding((at, "kind"), f"a second {kind}: write one")
        else:
            places[kind] = at
    if "RayJob" not in places:
        yield Finding((0,), "one document must have kind: RayJob")
        return
    at = places["RayJob"]
    job = documents[at]
    shapes = list(differences(job, RAY_JOB, (at,)))
    yield from (Finding(*found) for found in shapes)
    if "spec" not in job:
        yield Finding((at,), "no spec: the RayJob says nothing")
    elif not shapes:
        for where, text in _job(job["spec"]):
            yield Finding((at, "spec", *where), text)
    if "NetworkPolicy" not in places:
        yield Finding((at,), "no NetworkPolicy: every pod of the cluster reaches Ray")
        return
    at = places["NetworkPolicy"]
    policy = documents[at]
    different = list(differences(policy, NETWORK_POLICY, (at,)))
    yield from (Finding(*found) for found in different)
    if "spec" in job and not shapes and not different:
        for where, text in _policy(policy, job):
            yield Finding((at, *where), text)


def _job(spec: dict[str, Any]) -> Iterator[Found]:
    cluster = spec.get("rayClusterSpec") or {}
    for where, text in _cluster(cluster):
        yield ("rayClusterSpec", *where), text
    for pod, where in (*_pods(cluster), (spec.get("submitterPodTemplate") or {}, ("submitterPodTemplate",))):
        for at, container in enumerate((pod.get("spec") or {}).get("containers") or ()):
            yield from _environment(container, (*where, "spec", "containers", at))
    yield from _environment(cluster.get("autoscalerOptions") or {}, ("rayClusterSpec", "autoscalerOptions"))
    if not spec.get("entrypoint"):
        yield (), "no entrypoint: the search to run"
    if not spec.get("shutdownAfterJobFinishes"):
        yield (), "shutdownAfterJobFinishes: true, or the cluster outlives its search"


def _pods(cluster: dict[str, Any]) -> Iterator[tuple[dict[str, Any], Path]]:
    """Templates of the cluster's pods, each with its place in the RayJob's spec."""
    head = cluster.get("headGroupSpec") or {}
    yield head.get("template") or {}, ("rayClusterSpec", "headGroupSpec", "template")
    for at, group in enumerate(cluster.get("workerGroupSpecs") or ()):
        yield group.get("template") or {}, ("rayClusterSpec", "workerGroupSpecs", at, "template")


def _environment(container: dict[str, Any], where: Path) -> Iterator[Found]:
    for at, variable in enumerate(container.get("env") or ()):
        name = variable.get("name", "")
        if variable.get("value") and (name in DATABASES or SECRET_KEYS.search(name)):
            yield (
                (*where, "env", at),
                f"{name} is no secret here; write valueFrom: {{secretKeyRef: {{name: ..., key: ...}}}}",
            )


def _policy(policy: dict[str, Any], job: dict[str, Any]) -> Iterator[Found]:
    """What would leave a pod open all the same: it must be for every pod, and let in pods by name only."""
    spec = policy.get("spec") or {}
    if (policy.get("metadata") or {}).get("namespace") != (job.get("metadata") or {}).get("namespace"):
        yield (
            ("metadata",),
            "the NetworkPolicy is in another namespace than the RayJob, and closes nothing there",
        )
    if "Ingress" not in (spec.get("policyTypes") or ()):
        yield ("spec", "policyTypes"), "without Ingress every pod of the cluster reaches Ray"
    wanted = (spec.get("podSelector") or {}).get("matchLabels") or {}
    if "podSelector" not in spec:
        yield ("spec",), "no podSelector: write the labels of the RayJob's pods"
    for pod, _ in _pods(job["spec"].get("rayClusterSpec") or {}):
        labels = (pod.get("metadata") or {}).get("labels") or {}
        if not wanted.items() <= labels.items():
            text = "pods of the RayJob are left out, and stay open: write labels that all of them have"
            yield ("spec", "podSelector"), text
            break
    for at, rule in enumerate(spec.get("ingress") or ()):
        where: Path = ("spec", "ingress", at)
        if not rule.get("from"):
            yield where, "a rule without `from` lets in everybody"
        for number, peer in enumerate(rule.get("from") or ()):
            if not (peer.get("podSelector") or {}).get("matchLabels"):
                yield (*where, "from", number), "every pod gets in: write podSelector.matchLabels"


def _cluster(cluster: dict[str, Any]) -> Iterator[Found]:
    if (cluster.get("authOptions") or {}).get("mode") != "token":
        yield ("authOptions",), "authOptions.mode: token, or who reaches the head, owns it"
    head = cluster.get("headGroupSpec") or {}
    params = head.get("rayStartParams") or {}
    for key in ("num-cpus", "num-gpus"):
        if params.get(key) != "0":
            yield ("headGroupSpec", "rayStartParams"), f'the head could run trials: write {key}: "0"'
    if "driver" not in _resources(params.get("resources", "")):
        text = 'no driver resource: write resources: \'"{\\"driver\\": 1000, \\"latency_bench\\": 1}"\''
        yield ("headGroupSpec", "rayStartParams"), text
    if head.get("serviceType", "ClusterIP") != "ClusterIP" or head.get("enableIngress"):
        yield ("headGroupSpec",), "the head is open to the outside: serviceType: ClusterIP, and no ingress"
    groups = cluster.get("workerGroupSpecs") or []
    if not groups:
        yield ("workerGroupSpecs",), "no workers: trials have no place"
    if not cluster.get("enableInTreeAutoscaling"):
        yield (), "enableInTreeAutoscaling: true, or no worker starts when trials wait"
    yield from _disks(head, ("headGroupSpec",))
    for at, group in enumerate(groups):
        where = ("workerGroupSpecs", at)
        yield from _disks(group, where)
        low, high = group.get("minReplicas", 0), group.get("maxReplicas", 0)
        if not 0 <= low <= high or high == 0:
            yield where, f"minReplicas is {low} and maxReplicas {high}: 0 or more, and at least 1"
        elif low:
            yield (*where, "minReplicas"), f"minReplicas is {low}: they cost when nothing waits; write 0"


def _resources(text: str) -> dict[str, Any]:
    """Ray's resources as KubeRay wants them written: JSON in quotes, whose own quotes are escaped."""
    try:
        found = json.loads(json.loads(text))
    except (ValueError, TypeError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _disks(group: dict[str, Any], where: Path) -> Iterator[Found]:
    for container in ((group.get("template") or {}).get("spec") or {}).get("containers") or [{}]:
        if "ephemeral-storage" not in ((container.get("resources") or {}).get("requests") or {}):
            yield where, "no disk: resources.requests.ephemeral-storage, 100Gi or more"
