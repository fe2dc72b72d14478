"""The fields of a RayJob and of the NetworkPolicy beside it.

They are those of KubeRay's API reference (ray.io/v1, 1.6) and of Kubernetes' pods, as far as a search needs
them. A field that exists but is not listed is refused all the same, so add it, unless it opens something:
a port of the machine, a service for the outside, addresses that may come in.
"""

from __future__ import annotations

from cluster.shapes import ANY, MAPPING, TEXT_TO_TEXT, Shape

AMOUNTS: Shape = {"requests": MAPPING, "limits": MAPPING}
ENV: list[Shape] = [{"name": str, "value": str, "valueFrom": MAPPING}]
CONTAINER: Shape = {
    "name": str,
    "image": str,
    "env": ENV,
    "envFrom": ANY,
    "resources": AMOUNTS,
    "securityContext": ANY,
    "volumeMounts": ANY,
    "ports": [{"name": str, "containerPort": int, "protocol": str}],
    "imagePullPolicy": str,
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
METADATA: Shape = {"name": str, "namespace": str, "labels": TEXT_TO_TEXT, "annotations": TEXT_TO_TEXT}
RAY_JOB: Shape = {
    "apiVersion": frozenset({"ray.io/v1"}),
    "kind": str,
    "metadata": METADATA,
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
                "env": ENV,
                "envFrom": ANY,
                "volumeMounts": ANY,
                "securityContext": ANY,
            },
            "headGroupSpec": {
                "serviceType": str,
                "enableIngress": bool,
                "rayStartParams": TEXT_TO_TEXT,
                "template": POD,
            },
            "workerGroupSpecs": [GROUP],
        },
    },
}
LABELS: Shape = {"matchLabels": TEXT_TO_TEXT}
NETWORK_POLICY: Shape = {
    "apiVersion": frozenset({"networking.k8s.io/v1"}),
    "kind": str,
    "metadata": METADATA,
    "spec": {
        "podSelector": LABELS,
        "policyTypes": [frozenset({"Ingress", "Egress"})],
        "ingress": [
            {
                "from": [{"podSelector": LABELS, "namespaceSelector": LABELS}],
                "ports": [{"protocol": str, "port": (int, str), "endPort": int}],
            }
        ],
        "egress": ANY,
    },
}
