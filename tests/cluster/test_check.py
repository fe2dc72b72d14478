"""What `python -m cluster.check` refuses, and in which words."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster import check

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).parents[2]
GROUPS = "SecurityGroupIds: *groups\n"
POOL = "        - name: External NAT"

BROKEN = [
    # Open to everybody.
    ("gpu.yaml", "--dashboard-host=127.0.0.1", "--dashboard-host=0.0.0.0", "let in your own address only"),
    ("gpu.yaml", "--dashboard-host=127.0.0.1 ", "", "the dashboard runs what it"),
    ("gpu.yaml", "--dashboard-host=127.0.0.1", "--dashboard-host=::", "127.0.0.1"),
    (
        "gpu.yaml",
        "  cache_stopped_nodes: false",
        "  cache_stopped_nodes: false\n  security_group:\n    IpPermissions:\n      - FromPort: 22\n"
        "        ToPort: 22\n        IpProtocol: tcp\n        IpRanges: [{CidrIp: 0.0.0.0/0}]\n",
        "let in your own address only",
    ),
    (
        "gpu.yaml",
        "  cache_stopped_nodes: false",
        "  cache_stopped_nodes: false\n  security_group:\n    IpPermissions:\n"
        '      - Ipv6Ranges: [{CidrIpv6: "::/0"}]\n',
        "let in your own address only",
    ),
    ("gpu.yaml", GROUPS, "EbsOptimized: true\n", "Ray would make a group with ssh for everybody"),
    ("gcp.yaml", "networkInterfaces: *network", "labels: {}", "the default one lets in everybody"),
    ("kuberay.yaml", "serviceType: ClusterIP", "serviceType: LoadBalancer", "open to the outside"),
    ("kuberay.yaml", "kind: NetworkPolicy", "kind: Other", "no NetworkPolicy"),
    # Secrets.
    ("gpu.yaml", "cluster_name: cofi-tune", "cluster_name: AKIAIOSFODNN7EXAMPLE", "an AWS access key"),
    (
        "gpu.yaml",
        "  region: us-east-1",
        "  region: us-east-1\n  aws_credentials:\n    aws_secret_access_key: abcdefghij",
        "aws_secret_access_key in the file",
    ),
    (
        "gpu.yaml",
        "RAY_AUTH_MODE=token",
        "RAY_AUTH_TOKEN=0123abcd RAY_AUTH_MODE=token",
        "a token in a command",
    ),
    (
        "onprem.yaml",
        "bash ~/cofi-tune/cluster/start_mlflow.sh",
        "MLFLOW_BACKEND_STORE_URI=postgresql://me:pw@db/mlflow bash ~/cofi-tune/cluster/start_mlflow.sh",
        "a password in an address",
    ),
    ("onprem.yaml", "setup.sh\n", 'setup.sh\n  - echo "-----BEGIN RSA PRIVATE KEY-----"\n', "a private key"),
    # Credentials for whoever asks.
    ("gpu.yaml", "HttpTokens: required", "HttpTokens: optional", "IMDSv1"),
    ("gpu.yaml", "MetadataOptions: *metadata", "EbsOptimized: true", "IMDSv1"),
    ("gpu.yaml", "HttpPutResponseHopLimit: 1", "HttpPutResponseHopLimit: 2", "HttpPutResponseHopLimit: 1"),
    ("gpu.yaml", "IamInstanceProfile: *profile", "EbsOptimized: true", "no IamInstanceProfile"),
    # No token.
    ("gpu.yaml", "RAY_AUTH_MODE=token ", "", "without RAY_AUTH_MODE=token"),
    ("onprem.yaml", "  ~/.ray/auth_token: ~/.ray/auth_token\n", "", "no token: mount"),
    ("gcp.yaml", "bash ~/cofi-tune/cluster/setup.sh gcp", "pip install cofi-tune", "readable by others"),
    ("kuberay.yaml", "mode: token", "mode: disabled", "authOptions.mode: token"),
    # A head that trains.
    ("gpu.yaml", "{CPU: 0, GPU: 0, driver", "{CPU: 4, GPU: 0, driver", "write CPU: 0"),
    ("gpu.yaml", "{CPU: 0, GPU: 0, driver", "{GPU: 0, driver", "write CPU: 0"),
    ("onprem.yaml", "--num-cpus=0 ", "", "write --num-cpus=0"),
    ("kuberay.yaml", 'num-gpus: "0"', 'num-gpus: "1"', 'write num-gpus: "0"'),
    ("kuberay.yaml", '"{\\"driver\\"', '"{\\"drivers\\"', "no driver resource"),
    (
        "gpu.yaml",
        "InstanceType: m6i.xlarge",
        "InstanceType: m6i.xlarge\n      InstanceMarketOptions: {MarketType: spot}",
        "a spot head",
    ),
    # Disks.
    ("gpu.yaml", "BlockDeviceMappings: *disk", "EbsOptimized: true", "no size of the disk"),
    ("gpu.yaml", "VolumeSize: 200", "VolumeSize: 30", "a disk of 30 GB"),
    ("gcp.yaml", "diskSizeGb: 200", "diskSizeGb: 50", "a disk of 50 GB"),
    ("kuberay.yaml", "memory: 16Gi, ephemeral-storage: 200Gi", "memory: 16Gi", "no disk"),
    # Numbers of nodes.
    ("gpu.yaml", "max_workers: 10 #", "max_workers: 0 #", "no worker may start"),
    (
        "gpu.yaml",
        "    min_workers: 0\n    max_workers: 2",
        "    min_workers: 3\n    max_workers: 2",
        "more than max",
    ),
    ("gpu.yaml", "    max_workers: 2", "    max_workers: 20", "where max_workers of the file is 10"),
    (
        "gpu.yaml",
        "    min_workers: 0\n    max_workers: 8",
        "    min_workers: 11\n    max_workers: 11",
        "`max_workers` is smaller than the sum of `min_workers`",
    ),
    ("gpu.yaml", "    max_workers: 2", "    max_workers: -1", "from 0 on"),
    ("gpu.yaml", "idle_timeout_minutes: 5", "idle_timeout_minutes: 0", "between two trials"),
    ("kuberay.yaml", "minReplicas: 0", "minReplicas: 9", "minReplicas is 9"),
    # Not what anybody meant.
    ("gpu.yaml", "max_workers: 10 #", "max_worker: 8 #", "unknown key max_worker; did you mean max_workers?"),
    ("gpu.yaml", "    priority: 0", "    prio: 0", "gpu_on_demand: unknown key prio; did you mean priority?"),
    ("gpu.yaml", "idle_timeout_minutes: 5", "idle_timeout_minutes: soon", "is not of type 'number'"),
    ("gpu.yaml", "head_node_type: head", "head_node_type: heads", "`head_node_type` must be one of"),
    ("gpu.yaml", "    resources: {CPU: 4, GPU: 1}\n", "", "'resources' is a required property"),
    ("gpu.yaml", "type: aws", "type: awz", "awz"),
    ("gpu.yaml", "  type: aws\n", "", "provider.type is missing"),
    ("onprem.yaml", "  head_ip: 192.0.2.1", "  head: 192.0.2.1", "provider.head_ip is missing"),
    (
        "gpu.yaml",
        "cluster_name: cofi-tune",
        "cluster_name: a\ncluster_name: b",
        "cluster_name stands here for the",
    ),
    ("gpu.yaml", "cluster_name: cofi-tune", "cluster_name: [a", "no YAML"),
    ("gpu.yaml", "BlockDeviceMappings: *disk", "BlockDeviceMappings: [big]", "not as the provider has them"),
    ("gpu.yaml", "start_spot_watcher.sh aws", "nothing.sh", "Ray would not know that they go"),
    ("gcp.yaml", "~/cofi-tune/.venv/bin/ray start", "echo", "no command here starts Ray"),
    (
        "kuberay.yaml",
        "maxReplicas: 8",
        "maxReplica: 8",
        "unknown field maxReplica; did you mean maxReplicas?",
    ),
    ("kuberay.yaml", "replicas: 0", 'replicas: "0"', "replicas is of type int"),
    (
        "kuberay.yaml",
        'num-cpus: "0"',
        "num-cpus: 0",
        "maps text to text",
    ),
    ("kuberay.yaml", "kind: RayJob", "kind: RayCluster", "must have kind: RayJob"),
    ("kuberay.yaml", "shutdownAfterJobFinishes: true", "suspend: false", "outlives its search"),
]


@pytest.mark.parametrize(("name", "old", "new", "words"), BROKEN, ids=[f"{b[0]}-{b[3][:40]}" for b in BROKEN])
def test_it_refuses(fill: Callable[[str], str], name: str, old: str, new: str, words: str) -> None:
    text = fill(name)
    assert old in text
    found = check.problems(text.replace(old, new))
    assert any(words in line for line in found), found
    assert all(line.startswith("line ") and "Traceback" not in line for line in found)


def test_a_secret_is_not_repeated(fill: Callable[[str], str]) -> None:
    text = fill("gpu.yaml").replace("cluster_name: cofi-tune", "cluster_name: AKIAIOSFODNN7EXAMPLE")
    assert not any("AKIA" in line for line in check.problems(text))


@pytest.mark.parametrize(
    "text", ["", "[]", "a", "a: {", "\t", "a: 1\n---\nb: 2", "provider: {type: aws}", "{1: 2}"]
)
def test_anything_else_is_refused_without_a_traceback(text: str) -> None:
    assert check.problems(text)


def test_the_command(tmp_path: Path, fill: Callable[[str], str]) -> None:
    good = tmp_path / "good.yaml"
    good.write_text(fill("gpu.yaml"))
    command = [sys.executable, "-m", "cluster.check", str(good), "cluster/onprem.yaml", "nowhere.yaml"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == f"{good}: fine\n"
    lines = done.stderr.splitlines()
    assert lines[0] == (
        "cluster/onprem.yaml: line 12: CHANGEME is a placeholder; fill it in: address of the head, "
        "as the workers reach it"
    )
    assert len(lines) == 5
    assert "nowhere.yaml" in lines[-1]
