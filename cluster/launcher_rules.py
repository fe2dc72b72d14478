"""What must hold for a file of `ray up`: Ray's rules, then those of a closed cluster and a small bill."""

from __future__ import annotations

import copy
import json
import pathlib
from collections.abc import Iterator
from typing import Any

from cluster import node_rules, start_rules
from cluster.findings import Finding, Found, Path

TOKEN_FILE = "~/.ray/auth_token"
LOCAL = "local"


def rules(config: dict[str, Any]) -> Iterator[Finding]:
    """What is wrong with a file of `ray up`, Ray's own rules first.

    Args:
        config: the file's one document.
    """
    try:
        prepared = _prepared(config)
    except ValueError as error:
        where = error.args[1] if len(error.args) > 1 else ()
        yield Finding((0, *where), str(error.args[0]))
        return
    for where, text in _own(config, prepared):
        yield Finding((0, *where), text)


def _prepared(config: dict[str, Any]) -> dict[str, Any]:
    """The file with Ray's defaults.

    Raises:
        ValueError: a sentence, and the path that it is about.
    """
    import click
    import jsonschema
    from ray.autoscaler._private import util

    _check_provider(config)
    _check_types(config)
    config = copy.deepcopy(config)
    # What lies here is not asked: the file may be checked anywhere.
    config["file_mounts"] = dict.fromkeys(config.get("file_mounts", ()), "")
    try:
        prepared: dict[str, Any] = util.prepare_config(config)
        util.validate_config(prepared)
    except jsonschema.ValidationError as error:
        where = tuple(error.absolute_path)
        raise ValueError(_readable(error, where), where) from error
    except (click.ClickException, NotImplementedError, RuntimeError, TypeError, AssertionError) as error:
        raise ValueError(f"Ray refuses the file: {error}") from error
    return prepared


def _check_provider(config: dict[str, Any]) -> None:
    provider = config.get("provider")
    if not isinstance(provider, dict) or "type" not in provider:
        raise ValueError("provider.type is missing: aws, gcp or local", ("provider",))
    if provider["type"] not in ("aws", "gcp", LOCAL):
        text = f"provider.type {provider['type']!r:.40} is not one of ours: aws, gcp, local"
        raise ValueError(text, ("provider", "type"))
    if provider["type"] == LOCAL:
        for key in ("head_ip", "worker_ips"):
            if not provider.get(key):
                raise ValueError(f"provider.{key} is missing", ("provider",))


def _check_types(config: dict[str, Any]) -> None:
    """Ray's schema, before Ray fills in what is missing: that stumbles over what is of the wrong type."""
    import jsonschema
    import ray.autoscaler

    for key, where in _odd_keys(config):
        raise ValueError(f"the key {key!r:.40} is no text: write quotes around it", where)
    for key, value in config.items():
        if value is None:
            raise ValueError(f"{key} is left empty: fill it in, or leave out its line", (key,))
    schema = json.loads(
        pathlib.Path(ray.autoscaler.__file__).with_name("ray-schema.json").read_text(encoding="utf-8")
    )
    # Without clouds Ray takes min_workers from here, and its schema does not know.
    own = {"min_workers"} if config["provider"]["type"] == LOCAL else set()
    known = {key: value for key, value in config.items() if key not in own}
    for error in jsonschema.Draft7Validator(schema).iter_errors(known):
        if error.validator != "required":
            where = tuple(error.absolute_path)
            raise ValueError(_readable(error, where), where)


def _odd_keys(value: Any, where: Path = ()) -> Iterator[tuple[Any, Path]]:
    """Keys that are no text, each with the place of its mapping: of those nobody's rules can speak."""
    if isinstance(value, dict):
        yield from ((key, where) for key in value if not isinstance(key, str))
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, held in inner:
        yield from _odd_keys(held, (*where, key))


def _readable(error: Any, where: Path) -> str:
    """A sentence for what the schema found, with the nearest key for one that it does not know."""
    from cofi_tune.data.names import closest

    place = ".".join(map(str, where))
    if error.validator == "additionalProperties":
        wrong = [key for key in error.instance if key not in error.schema.get("properties", {})]
        near = closest(str(wrong[0]), error.schema.get("properties", {}))
        hint = f"; did you mean {near}?" if near else ""
        return f"{f'{place}: ' if place else ''}unknown key {wrong[0]}{hint}"
    return f"{f'{place}: ' if place else ''}{error.message:.200}"


def _own(written: dict[str, Any], prepared: dict[str, Any]) -> Iterator[Found]:
    yield from start_rules.rules(written, prepared)
    yield from _token(prepared)
    if prepared["provider"]["type"] == LOCAL:
        return
    yield from node_rules.rules(prepared)


def _token(config: dict[str, Any]) -> Iterator[Found]:
    if TOKEN_FILE not in config["file_mounts"]:
        yield ("file_mounts",), f"no token: mount {TOKEN_FILE}, made by `ray get-auth-token --generate`"
    setup = " ".join(config["worker_setup_commands"])
    if "cluster/setup.sh" not in setup and f"chmod 600 {TOKEN_FILE}" not in setup:
        yield ("setup_commands",), f"the token may be readable by others: chmod 600 {TOKEN_FILE}"
