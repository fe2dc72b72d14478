"""Whatever a file holds, `python -m cluster.check` answers in sentences."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cluster import check, secret_rules

ODD = {
    "nothing": "",
    "a list": "[]",
    "a word": "a",
    "half a mapping": "a: {",
    "a tab": "\t",
    "two documents": "a: 1\n---\nb: 2",
    "little": "provider: {type: aws}",
    "a number for a key": "{1: 2}",
    "a list for a key": "? [a]\n: b",
    "itself": "a: &a [*a]",
    "brackets": "[" * 3000,
    "closed brackets": "[" * 3000 + "]" * 3000,
    "billions": "\n".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9) if n else 1}]" for n in range(12)),
    "a date": "provider: 2026-99-99",
    "a number": "provider: !!int many",
    "no sign": "a: \0",
    "a job without spec": "apiVersion: ray.io/v1\nkind: RayJob",
    "a job of nothing": "apiVersion: ray.io/v1\nkind: RayJob\nspec:",
    "a job without spec beside a policy": (
        "apiVersion: ray.io/v1\nkind: RayJob\n---\n"
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nspec: {}"
    ),
    "a list of a kind": "apiVersion: ray.io/v1\nkind: [RayJob]",
}


@pytest.mark.parametrize("text", ODD.values(), ids=ODD)
def test_anything_else_is_refused_without_a_traceback(text: str) -> None:
    found = check.problems(text)
    assert found
    assert all(line.startswith("line ") and "\n" not in line and "stumbled" not in line for line in found), (
        found
    )


ODDITIES = st.sampled_from(
    [None, True, -1, 0, 1.5, "", "text", "2", [], [None], ["text"], [[]], {}, {"a": None}, {1: 2}]
)


@pytest.mark.parametrize("name", ["gpu.yaml", "gcp.yaml", "onprem.yaml", "kuberay.yaml"])
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_value_makes_it_stumble(fill: Callable[[str], str], name: str, data: st.DataObject) -> None:
    documents = copy.deepcopy(list(yaml.safe_load_all(fill(name))))
    holder: Any = documents
    while True:
        key = data.draw(st.sampled_from(list(holder) if isinstance(holder, dict) else range(len(holder))))
        if not isinstance(holder[key], dict | list) or not holder[key] or data.draw(st.integers(0, 4)) == 0:
            break
        holder = holder[key]
    holder[key] = data.draw(ODDITIES)
    found = check.problems(yaml.safe_dump_all(documents))
    assert not any("stumbled" in line for line in found), found


@pytest.mark.parametrize("inner", [False, True])
def test_keys_that_are_no_text_are_named(fill: Callable[[str], str], inner: bool) -> None:
    """Ray's schema says `.*` of types of nodes and their resources, which no number can be matched with."""
    config = yaml.safe_load(fill("gpu.yaml"))
    types = config["available_node_types"]
    if inner:
        next(iter(types.values()))["resources"] = {1: 2}
    else:
        types[1] = {}
    [line] = check.problems(yaml.safe_dump(config))
    assert "the key 1 is no text: write quotes around it" in line


def test_a_rule_that_stumbles_is_named(fill: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> None:
    def stumbles(_: object) -> Iterator[Any]:
        raise KeyError("a\nb")

    monkeypatch.setattr(secret_rules, "rules", stumbles)
    [line] = check.problems(fill("gpu.yaml"))
    assert line == "line 4: the rules of secrets stumbled (KeyError: 'a\\nb'); this may be ours to mend"
