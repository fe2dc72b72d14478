"""What `python -m cluster.check` refuses, and in which words."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster import check

ROOT = Path(__file__).parents[2]
GROUPS = "SecurityGroupIds: *groups\n"
SETUP = "bash ~/cofi-tune/cluster/setup.sh aws"
MLFLOW = "bash ~/cofi-tune/cluster/start_mlflow.sh"
DASHBOARD = "--dashboard-host=127.0.0.1"
GITHUB = "ghp_0123456789abcdefABCDEF0123456789abcd"
INGRESS = "  ingress:\n    - from:\n"
NAME = "matchLabels:\n      app.kubernetes.io/name: cofi-tune"
PEER = "        - namespaceSelector: {}\n        - podSelector:"
ELSEWHERE = "metadata:\n  namespace: other\nspec:\n  podS"
HOST_PORT = "              ports: [{containerPort: 8265, hostPort: 8265}]\n"
ENV = "                - name: COFI_STORAGE"
FROM = "                  valueFrom: {secretKeyRef: {name: cofi-tune, key: study}}"
FIVE = "    min_workers: 5\n    max_workers: 8"
REPLICAS = "minReplicas: 1\n        maxReplicas: 8"

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
    ("kuberay.yaml", INGRESS, "  ingress: [{}]\n  egress:\n    - to:\n", "without `from` lets in everybody"),
    ("kuberay.yaml", "    - Ingress", "    - Egress", "without Ingress every pod"),
    (
        "kuberay.yaml",
        f"  podSelector:\n    {NAME}",
        "  podSelector:\n    matchLabels: {a: b}",
        "are left out",
    ),
    ("kuberay.yaml", f"  podSelector:\n    {NAME}", "  podSelector:\n", "podSelector has fields"),
    ("kuberay.yaml", f"  podSelector:\n    {NAME}\n", "", "no podSelector"),
    ("kuberay.yaml", "    - from:", "    - frm:", "unknown field frm; did you mean from?"),
    ("kuberay.yaml", "        - namespaceSelector: {}\n          podSelector:", PEER, "every pod gets in"),
    ("kuberay.yaml", "- podSelector: # the Job", "- ipBlock: # the Job", "unknown field ipBlock"),
    ("kuberay.yaml", "metadata:\n  name: cofi-tune\nspec:\n  podS", ELSEWHERE, "in another namespace"),
    (
        "kuberay.yaml",
        "---\n",
        "---\nkind: Service\nspec: {type: LoadBalancer}\n---\n",
        "kind Service is not exp",
    ),
    ("kuberay.yaml", "---\n", "---\nkind: NetworkPolicy\nspec: {}\n---\n", "a second NetworkPolicy"),
    ("kuberay.yaml", "name: ray-head\n", f"name: ray-head\n{HOST_PORT}", "unknown field hostPort"),
    ("gpu.yaml", DASHBOARD, f"{DASHBOARD} --dashboard-host=10.0.0.5", "stands here twice"),
    ("gpu.yaml", DASHBOARD, f"{DASHBOARD}.example.org", "the dashboard runs what it"),
    ("gpu.yaml", DASHBOARD, "--dashboard-host 10.0.0.5", "the dashboard runs what it"),
    ("gpu.yaml", DASHBOARD, f"# {DASHBOARD}", "unexpected extra argument"),
    ("gpu.yaml", DASHBOARD, "--dashbord-host=127.0.0.1", "No such option"),
    ("gpu.yaml", "--head", "--help", "starts nothing"),
    ("gpu.yaml", "start --address=$RAY_HEAD_IP:6379", "start --head", "--head belongs into head_start"),
    (
        "gpu.yaml",
        "RAY_AUTH_MODE=token",
        "RAY_AUTH_MODE=token RAY_AUTH_MODE=disabled",
        "without RAY_AUTH_MODE",
    ),
    ("gpu.yaml", "RAY_AUTH_MODE=token", "true RAY_AUTH_MODE=token;", "without RAY_AUTH_MODE=token"),
    ("gpu.yaml", "RAY_AUTH_MODE=token", "RAY_AUTH_MODE=token\n\n    ", "no command inside another"),
    ("gpu.yaml", "ulimit -n 65536;", "ulimit -n 65536 &", "& is not expected"),
    ("gpu.yaml", "ulimit -n 65536;", "echo $(ray start --head);", "no command inside another"),
    ("gpu.yaml", "ulimit -n 65536;", "echo 'a;", "No closing quotation"),
    ("gpu.yaml", MLFLOW, "mlflow server --host 10.0.0.4", "not expected where Ray starts"),
    ("gpu.yaml", MLFLOW, "mlflow server --host 0", "listens to other machines"),
    ("gpu.yaml", "setup.sh aws", "setup.sh aws\n  - mlflow server -h 10.0.0.4", "nodes start servers in"),
    (
        "gpu.yaml",
        "setup.sh aws",
        "setup.sh aws\n  - python -m app --host=10.0.0.4",
        "listens to other machines",
    ),
    (
        "gpu.yaml",
        "setup.sh aws",
        f"setup.sh aws\n  - python start.py {DASHBOARD}.example.org",
        "listens to other",
    ),
    ("gpu.yaml", "setup.sh aws", "setup.sh aws\n  - ray start --head", "nodes start servers in"),
    ("gcp.yaml", "start_spot_watcher.sh gcp", "start_spot_watcher.sh aws", "the watcher asks aws"),
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
    (
        "kuberay.yaml",
        ENV,
        f"                - {{name: PGPASSWORD, value: geheim}}\n{ENV}",
        "PGPASSWORD is no secret",
    ),
    (
        "kuberay.yaml",
        f"{ENV}\n{FROM}",
        f"{ENV}\n                  value: postgresql://me@db/s",
        "COFI_STORAGE is no",
    ),
    ("kuberay.yaml", "---\n", "---\nkind: Secret\nstringData: {a: geheim}\n---\n", "a Secret in the file"),
    (
        "kuberay.yaml",
        "  backoffLimit: 3",
        "  runtimeEnvYAML: '{env_vars: {HF_TOKEN: geheim}}'",
        "a token in a com",
    ),
    ("gpu.yaml", SETUP, f"{SETUP}\n  - pip install git+https://{GITHUB}@github.com/me/it", "a GitHub token"),
    (
        "gpu.yaml",
        SETUP,
        f"{SETUP}\n  - git clone https://geheim@github.com/me/it",
        "a password in an address",
    ),
    (
        "gpu.yaml",
        SETUP,
        f"{SETUP}\n  - git clone https://me:ge$heim@github.com/it",
        "a password in an address",
    ),
    ("gpu.yaml", SETUP, f"{SETUP}\n  - echo hunter2 > ~/.pgpass", "a command that writes credentials"),
    ("gpu.yaml", SETUP, f"{SETUP}\n  - echo hunter2 | tee -a ~/.netrc", "a command that writes credentials"),
    ("gpu.yaml", SETUP, f"{SETUP}\n  - aws configure set aws_secret_access_key abc", "a token in a command"),
    ("gpu.yaml", SETUP, f"{SETUP}\n  - hf auth login --token abc", "a token in a command"),
    ("gpu.yaml", SETUP, f"{SETUP} # AKIAIOSFODNN7EXAMPLE", "an AWS access key"),
    ("gpu.yaml", SETUP, f"{SETUP} # wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "an AWS secret key"),
    ("onprem.yaml", "rsync_exclude:", f"# {GITHUB}\nrsync_exclude:", "line 32: a GitHub token"),
    ("gpu.yaml", "cluster_name: cofi-tune", 'cluster_name: "AK\\x49AIOSFODNN7EXAMPLE"', "an AWS access key"),
    # Credentials for whoever asks.
    ("gpu.yaml", "HttpTokens: required", "HttpTokens: optional", "IMDSv1"),
    ("gpu.yaml", "MetadataOptions: *metadata", "EbsOptimized: true", "IMDSv1"),
    ("gpu.yaml", "HttpPutResponseHopLimit: 1", "HttpPutResponseHopLimit: 2", "HttpPutResponseHopLimit: 1"),
    ("gpu.yaml", "IamInstanceProfile: *profile", "EbsOptimized: true", "no IamInstanceProfile"),
    ("gpu.yaml", "cofi-worker", "cofi-head", "this worker has the head's account"),
    ("gcp.yaml", "cofi-worker", "cofi-head", "this worker has the head's account"),
    ("gcp.yaml", "      serviceAccounts: *account\n", "", "no serviceAccounts"),
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
    ("gpu.yaml", "    min_workers: 0\n    max_workers: 8", FIVE, "5 of these cost when nothing waits"),
    ("kuberay.yaml", "minReplicas: 0\n        maxReplicas: 8", REPLICAS, "they cost when nothing waits"),
    ("kuberay.yaml", "enableInTreeAutoscaling: true", "suspend: false", "unknown field suspend"),
    (
        "kuberay.yaml",
        "enableInTreeAutoscaling: true",
        "enableInTreeAutoscaling: false",
        "no worker starts when",
    ),
    # No spot node, though it was meant.
    ("gpu.yaml", "MarketType: spot", "MarketType: Spot", "MarketType is one of capacity-block, "),
    ("gpu.yaml", "InstanceMarketOptions:", "InstanceMarketOption:", "did you mean InstanceMarketOptions?"),
    (
        "gcp.yaml",
        "provisioningModel: SPOT",
        "provisioningModel: spot",
        "provisioningModel is one of SPOT, STA",
    ),
    ("gcp.yaml", "      scheduling:", "      schedulings:", "did you mean scheduling?"),
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
    ("gpu.yaml", "BlockDeviceMappings: *disk", "BlockDeviceMappings: [big]", "and is not the text 'big'"),
    ("gpu.yaml", "VolumeSize: 200", 'VolumeSize: "200"', "VolumeSize is a whole number, not the text '200'"),
    ("gcp.yaml", "diskSizeGb: 200", 'diskSizeGb: "200"', "diskSizeGb is a whole number, not the text '200'"),
    ("gpu.yaml", f"setup_commands:\n  - {SETUP}", "setup_commands:", "setup_commands is left empty"),
    ("gpu.yaml", "rsync_exclude:\n  - __pycache__", "rsync_exclude:", "rsync_exclude is left empty"),
    ("gpu.yaml", "max_workers: 10 #", "max_workers: #", "max_workers is left empty"),
    ("onprem.yaml", "upscaling_speed: 4.0", "min_workers: few", "Ray refuses the file"),
    ("gpu.yaml", "type: aws", "type: azure", "'azure' is not one of ours: aws, gcp, local"),
    (
        "gpu.yaml",
        "cluster_name: cofi-tune",
        "cluster_name: 2026-99-99",
        "line 4: no YAML: timestamp '2026-99-99'",
    ),
    ("gpu.yaml", "provider:\n", "provider: &a\n  b: *a\n", "holds itself"),
    ("kuberay.yaml", "spec:\n  entrypoint", "specs:\n  entrypoint", "no spec"),
    ("gpu.yaml", "start_spot_watcher.sh aws", "nothing.sh", "Ray would not know that they go"),
    ("gcp.yaml", "~/cofi-tune/.venv/bin/ray start", "echo", "no command here starts Ray"),
    (
        "kuberay.yaml",
        "maxReplicas: 8",
        "maxReplica: 8",
        "unknown field maxReplica; did you mean maxReplicas?",
    ),
    ("kuberay.yaml", "replicas: 0", 'replicas: "0"', "replicas is a whole number, not the text"),
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


FINE = [
    ("gpu.yaml", DASHBOARD, "--dashboard-host localhost --labels=a=b"),
    ("gpu.yaml", MLFLOW, f"MLFLOW_BACKEND_STORE_URI=postgresql://me@db/mlflow {MLFLOW}"),
    ("gpu.yaml", SETUP, f"{SETUP}\n  - chmod 600 ~/.pgpass\n  - export HF_TOKEN=$(cat ~/.hf)"),
    (
        "gpu.yaml",
        SETUP,
        f"{SETUP}\n  - git clone https://$TOKEN@github.com/me/it # 1f2e3d4c5b6a79880716253443526170819abcde",
    ),
    ("gpu.yaml", "InstanceType: g5.xlarge", "InstanceType: p99.huge\n      SubnetIds: [subnet-1]"),
    ("gcp.yaml", "ulimit -n 65536;", "ulimit -n 65536 &&"),
    ("onprem.yaml", "upscaling_speed: 4.0", "min_workers: 0\nmax_workers: 1"),
    ("kuberay.yaml", "  ingress:\n", "  egress: [{}]\n  ingress:\n"),
    ("kuberay.yaml", f"  podSelector:\n    {NAME}", "  podSelector: {}"),
]


@pytest.mark.parametrize(("name", "old", "new"), FINE, ids=[f"{f[0]}-{f[2][-20:]}" for f in FINE])
def test_it_takes(fill: Callable[[str], str], name: str, old: str, new: str) -> None:
    text = fill(name)
    assert old in text
    assert check.problems(text.replace(old, new)) == []


def test_a_secret_is_not_repeated(fill: Callable[[str], str]) -> None:
    text = fill("gpu.yaml").replace("cluster_name: cofi-tune", "cluster_name: AKIAIOSFODNN7EXAMPLE")
    assert not any("AKIA" in line for line in check.problems(text))


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
