"""The fields of a node_config: AWS's from AWS's own package, Google Cloud's from the reference of its API."""

from __future__ import annotations

import functools
from typing import Any

from cluster.shapes import ANY, MAPPING, TEXT_TO_TEXT, Shape

GCP: Shape = {
    "machineType": str,
    "minCpuPlatform": str,
    "description": str,
    "labels": TEXT_TO_TEXT,
    "tags": MAPPING,
    "metadata": MAPPING,
    "guestAccelerators": [{"acceleratorType": str, "acceleratorCount": int}],
    "shieldedInstanceConfig": MAPPING,
    "reservationAffinity": MAPPING,
    "advancedMachineFeatures": MAPPING,
    "resourcePolicies": [str],
    "disks": [
        {
            "boot": bool,
            "autoDelete": bool,
            "type": frozenset({"PERSISTENT", "SCRATCH"}),
            "interface": str,
            "diskEncryptionKey": MAPPING,
            "initializeParams": {
                "diskSizeGb": int,
                "sourceImage": str,
                "diskType": str,
                "labels": TEXT_TO_TEXT,
                "provisionedIops": int,
                "provisionedThroughput": int,
            },
        }
    ],
    "networkInterfaces": [
        {
            "network": str,
            "subnetwork": str,
            "nicType": str,
            "stackType": str,
            "accessConfigs": [{"name": str, "type": str, "networkTier": str, "natIP": str}],
        }
    ],
    "serviceAccounts": [{"email": str, "scopes": [str]}],
    "scheduling": [
        {
            "provisioningModel": frozenset({"SPOT", "STANDARD"}),
            "instanceTerminationAction": frozenset({"DELETE", "STOP"}),
            "onHostMaintenance": frozenset({"MIGRATE", "TERMINATE"}),
            "preemptible": bool,
            "automaticRestart": bool,
            "maxRunDuration": MAPPING,
        }
    ],
}
"""Of an instance, as far as a search needs them; one that exists and is not listed is refused: add it."""


@functools.cache
def aws() -> Shape:
    """What EC2's RunInstances takes, and the subnets that Ray chooses from.

    Raises:
        ImportError: AWS's package is not installed.
    """
    from botocore.loaders import Loader
    from botocore.model import ServiceModel

    description = Loader().load_service_model("ec2", "service-2")
    taken = ServiceModel(description, "ec2").operation_model("RunInstances").input_shape
    shape: Shape = _of(taken)
    return shape | {"SubnetIds": [str]}


def _of(described: Any) -> Any:
    """A shape as botocore describes it."""
    kind = described.type_name
    if kind == "structure":
        return {name: _of(member) for name, member in described.members.items()}
    if kind == "list":
        return [_of(described.member)]
    # A newer type of instance is no mistake.
    if kind == "string" and described.enum and described.name != "InstanceType":
        return frozenset(described.enum)
    known: dict[str, Any] = {"string": str, "integer": int, "long": int, "boolean": bool}
    return known.get(kind, ANY)
