"""How nodes start Ray and what runs beside it: word by word, as nothing else may listen there."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from itertools import takewhile
from typing import Any

from cluster.findings import LOOPBACK, Found, Path

START_KEYS = ("head_start_ray_commands", "worker_start_ray_commands")
ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=")
SERVER = re.compile(r"\bray\s+start\b|\bmlflow\s+(?:server|ui)\b")
UNEXPECTED = (
    "not expected where Ray starts: here stand `ulimit -n`, `ray stop`, `RAY_AUTH_MODE=token ray start`, "
    "start_mlflow.sh and start_spot_watcher.sh; all else goes into setup_commands"
)
LOCAL = "local"


def rules(written: dict[str, Any], prepared: dict[str, Any]) -> Iterator[Found]:
    """What is wrong with a file's commands.

    Args:
        written: the file.
        prepared: the same with Ray's defaults.
    """
    for key in START_KEYS:
        yield from _starts(key, prepared)
    for where, line in _others(written):
        if SERVER.search(line):
            yield where, "nodes start servers in head_start_ray_commands and worker_start_ray_commands only"


def simple_commands(line: str) -> list[list[str]]:
    """The words of each command in a line of the shell.

    Args:
        line: commands with `;` or `&&` between them, and nothing else that the shell has a meaning for.

    Raises:
        ValueError: the line has more than that.
    """
    if "\n" in line.strip() or "`" in line or "$(" in line:
        raise ValueError("one line, and no command inside another")
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    lexer.commenters = ""
    commands: list[list[str]] = [[]]
    for word in lexer:
        if word in (";", "&&"):
            commands.append([])
        elif word and set(word) <= set("();<>|&"):
            raise ValueError(f"{word} is not expected here")
        else:
            commands[-1].append(word)
    return [command for command in commands if command]


def _starts(key: str, config: dict[str, Any]) -> Iterator[Found]:
    """One of the lists that start Ray."""
    provider = config["provider"]["type"]
    started = False
    for at, line in enumerate(config[key]):
        try:
            commands = simple_commands(line)
        except ValueError as error:
            yield (key, at), f"Ray's start is compared word by word: {error}"
            continue
        for words in commands:
            assigned = list(takewhile(ASSIGNMENT.match, words))
            match words[len(assigned) :]:
                case [ray, "start", *arguments] if _is(ray, "ray"):
                    started = True
                    for text in _ray_start(assigned, arguments, key.startswith("head"), provider == LOCAL):
                        yield (key, at), text
                case [ray, "stop"] | [ray, "stop", "--force"] if _is(ray, "ray"):
                    pass
                case ["ulimit", "-n", _]:
                    pass
                case ["bash", script] if _is(script, "cluster/start_mlflow.sh"):
                    pass
                case ["bash", script, name] if _is(script, "cluster/start_spot_watcher.sh"):
                    if name != provider:
                        yield (key, at), f"the watcher asks {name}, and the nodes are of {provider}"
                case _:
                    yield (key, at), UNEXPECTED
    if not started:
        yield (key,), "no command here starts Ray: `ray start ...`"


def _ray_start(assigned: list[str], arguments: list[str], head: bool, local: bool) -> Iterator[str]:
    """One `ray start`, read by Ray itself."""
    import click
    from ray.scripts.scripts import start

    modes = [word for word in assigned if word.startswith("RAY_AUTH_MODE=")]
    if modes != ["RAY_AUTH_MODE=token"]:
        yield "Ray starts without RAY_AUTH_MODE=token: who reaches it, owns it"
    try:
        flags = start.make_context("ray start", list(arguments)).params
    except click.exceptions.Exit:
        yield "this prints Ray's help and starts nothing"
        return
    except click.ClickException as error:
        yield f"Ray refuses its command: {error.format_message()}"
        return
    named = [word.partition("=")[0] for word in arguments if word.startswith("--")]
    twice = next((name for name in named if named.count(name) > 1), None)
    if twice:
        yield f"{twice} stands here twice, and Ray takes the last one"
    if (head and "--dashboard-host" not in named) or flags["dashboard_host"] not in LOOPBACK:
        yield "the dashboard runs what it is sent: write --dashboard-host=127.0.0.1"
    if bool(flags["head"]) != head:
        yield "--head belongs into head_start_ray_commands, and only there"
    for flag in ("num_cpus", "num_gpus") if head and local else ():
        if flags[flag] != 0:
            yield f"the head could run trials: write --{flag.replace('_', '-')}=0"


def _is(word: str, name: str) -> bool:
    return word == name or word.endswith(f"/{name}")


def _others(config: dict[str, Any]) -> Iterator[Found]:
    """Every other command of the file."""
    types: dict[str, Any] = config.get("available_node_types", {})
    parts: list[tuple[Path, dict[str, Any]]] = [((), config)]
    parts += [(("available_node_types", name), node_type) for name, node_type in types.items()]
    for where, part in parts:
        for key, commands in part.items():
            if key.endswith("_commands") and key not in START_KEYS:
                yield from (((*where, key, at), line) for at, line in enumerate(commands))
