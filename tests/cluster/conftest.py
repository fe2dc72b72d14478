"""What the tests of cluster files share: the files, filled in as a user would."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
FILES = ("gpu.yaml", "gcp.yaml", "onprem.yaml", "kuberay.yaml")
VALUES = {
    "ami-CHANGEME": "ami-0123456789abcdef0",
    "sg-CHANGEME": "sg-0123456789abcdef0",
    "sourceImage: projects/CHANGEME": "sourceImage: projects/p/global/images/family/gpu",
    "subnetwork: projects/CHANGEME": "subnetwork: projects/p/regions/us-central1/subnetworks/s",
    "CHANGEME-head": "cofi-head",
    "CHANGEME-worker": "cofi-worker",
    "head_ip: CHANGEME": "head_ip: 192.0.2.1",
    "- CHANGEME #": "- 192.0.2.2 #",
    "CHANGEME": "mine",
}


def text(name: str) -> str:
    """A file as it is shipped."""
    return (ROOT / "cluster" / name).read_text(encoding="utf-8")


def filled(name: str) -> str:
    """A file with its placeholders filled in."""
    found = text(name)
    for placeholder, value in VALUES.items():
        found = found.replace(placeholder, value)
    return found


@pytest.fixture
def shipped() -> Callable[[str], str]:
    """`text`."""
    return text


@pytest.fixture
def fill() -> Callable[[str], str]:
    """`filled`."""
    return filled


@pytest.fixture
def gpu() -> dict[str, Any]:
    """gpu.yaml, filled in."""
    config: dict[str, Any] = yaml.safe_load(filled("gpu.yaml"))
    return config
