"""The flags of `cofi_tune.prune`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cofi_tune.config import CHAIN_EPOCHS, PRECISIONS
from cofi_tune.data.arguments import (
    Parser,
    add_source_arguments,
    add_teacher_cache,
    amount,
    chain,
    count,
    directory,
    positive,
    share,
)
from cofi_tune.model_names import RANDOM_SIZES
from cofi_tune.records import SCENARIOS


def parser() -> Parser:
    """All of them."""
    made = Parser(prog="python -m cofi_tune.prune", description="Prune one model, without a search.")
    add_source_arguments(made)
    group = made.add_argument_group("what to do")
    sizes = ", ".join(RANDOM_SIZES)
    group.add_argument("--model", help=f"hub id, directory, or {sizes} (random weights)")
    group.add_argument("--teacher", metavar="DIR", help="a fine-tuned model (default: fine-tune one)")
    targets = group.add_mutually_exclusive_group(required=True)
    targets.add_argument("--target-sparsity", type=share, metavar="S", help="in (0, 1)")
    targets.add_argument(
        "--chain",
        type=chain,
        metavar="S,S,...",
        help="several, such as 0.6,0.75,0.9, each reached from the one before: models in link-1, link-2, ...",
    )
    group.add_argument(
        "--chain-epochs",
        type=amount,
        metavar="X",
        help=f"of each link after the first, in units of the first one's (default {CHAIN_EPOCHS})",
    )
    group.add_argument(
        "--option",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="any other hyperparameter, such as cofi/distill_temperature=4 or init=pretrained",
    )
    group.add_argument("--epochs", type=amount, help="of pruning and recovery together (default: the task's)")
    group.add_argument("--teacher-epochs", type=amount, help="default: the task's")
    group.add_argument("--max-train-samples", type=positive, metavar="N", help="use a fixed part")
    group.add_argument("--seed", type=count, default=0, help="of teacher and run (default 0)")
    where = made.add_argument_group("where and how")
    where.add_argument(
        "--output",
        type=lambda text: Path(directory(text)),
        default=Path("out"),
        metavar="DIR",
        help="default: out",
    )
    where.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    where.add_argument(
        "--precision", choices=PRECISIONS, default="auto", help="of training (default auto: bf16 on GPUs)"
    )
    where.add_argument("--no-shrink", action="store_true", help="remove pruned units at the end only")
    where.add_argument("--threads", type=positive, metavar="N", help="of the CPU (default: torch's)")
    add_teacher_cache(where.add_argument)
    where.add_argument("--scenario", choices=SCENARIOS[:2], default=SCENARIOS[0])
    where.add_argument("--reference-protocol", action="store_true", help="also time padded to 128, batch 128")
    where.add_argument(
        "--selection", choices=("train", "dev"), default="train", help="rows that pick weights"
    )
    return made


def option(text: str) -> tuple[str, Any]:
    """`NAME=VALUE`; the value is JSON where it can be, else a word."""
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"--option {text}: write NAME=VALUE")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value
