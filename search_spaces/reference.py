"""The CoFi paper's own grid, at its own settings: what a search has to beat.

Sources: [paper] Xia, Zhong, Chen (ACL 2022, arXiv:2204.00408), its hyperparameters and its figure of
sparsities; [code] princeton-nlp/CoFiPruning at da855a8: README, `args.py`, `scripts/run_CoFi.sh`. Seven
sparsities, three mixes and three learning rates of recovery: 63 combinations; `--trials 63` has them all.

What differs: recovery's learning rate falls linearly, the paper's stays; gates and cut are this package's.
"""

from __future__ import annotations

from typing import Any

from search_spaces import Draw

LARGE = ("sst2", "mnli", "qqp", "qnli")
"""[paper] its large data sets; CoLA, STS-B, MRPC, RTE, and whatever it does not know, count as small."""

REFERENCE: dict[str, Any] = {
    "cofi/target_sparsity": 0.6,
    "cofi/layer_mix": 0.9,
    "cofi/recover_learning_rate_ratio": 1.0,
}

POINTS = [REFERENCE, {**REFERENCE, "cofi/target_sparsity": 0.95}]
"""[paper] the two sparsities of its released models."""


def space(draw: Draw, task: str) -> dict[str, Any]:
    """A proposal."""
    large = task in LARGE
    # [code] 20 epochs on large tasks, 100 on small ones, of which the first 1 and 4 distil without gates;
    # then 20 of recovery.
    finetune, train, recover = (1.0, 20.0, 20.0) if large else (4.0, 100.0, 20.0)
    # [code] the target rises over 2 epochs on large tasks, 20 on small ones.
    ramp = 2.0 if large else 20.0
    prune = train - finetune
    return {
        "method": "cofi",
        # [paper] starts from the pretrained checkpoint.
        "init": "pretrained",
        # [code] --seed 57.
        "seed": 57,
        "batch_size": 32,
        # [paper] 2e-5 for weights while pruning.
        "learning_rate": 2e-5,
        "finetune_epochs": finetune,
        "epochs": prune + recover,
        "cofi/recover_fraction": recover / (prune + recover),
        "cofi/warmup_fraction": ramp / prune,
        "cofi/sparsity_schedule": "linear",
        # [code] --reg_learning_rate 0.01, the multipliers' the same.
        "cofi/mask_learning_rate": 0.01,
        "cofi/multiplier_ratio": 1.0,
        # [code] droprate_init .5 and distill_temp 2.
        "cofi/initial_drop_rate": 0.5,
        "cofi/distill_temperature": 2.0,
        # [code] version 4 for small tasks, 3 or 4 for large ones; its released MNLI model has 3.
        "cofi/layer_matching": "v3" if large else "v4",
        # [paper] figure 2: 60 to 95 %.
        "cofi/target_sparsity": draw.suggest_categorical(
            "cofi/target_sparsity", [0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95]
        ),
        # [paper] lambda of the layer loss .9, .7, .5, the rest for the prediction.
        "cofi/layer_mix": draw.suggest_categorical("cofi/layer_mix", [0.9, 0.7, 0.5]),
        # [paper] 1e-5, 2e-5, 3e-5 after pruning at 2e-5.
        "cofi/recover_learning_rate_ratio": draw.suggest_categorical(
            "cofi/recover_learning_rate_ratio", [0.5, 1.0, 1.5]
        ),
    }
