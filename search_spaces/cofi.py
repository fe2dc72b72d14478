"""CoFi in full: how much to prune, how fast, how to teach, how to recover.

Sources: [paper] Xia, Zhong, Chen (ACL 2022, arXiv:2204.00408) and its grid; [code] princeton-nlp/CoFiPruning
at da855a8, `args.py` and `scripts/run_CoFi.sh`; [issues] its issue threads; [ours] measured or argued here.
Every range holds the reference's value, so that a search can at worst find it again.
"""

from __future__ import annotations

from typing import Any

from search_spaces import Draw

REFERENCE: dict[str, Any] = {
    "learning_rate_ratio": 1.0,
    "cofi/target_sparsity": 0.6,
    "cofi/sparsity_schedule": "linear",
    "cofi/warmup_fraction": 0.2,
    "cofi/mask_travel": 15.6,
    "cofi/multiplier_ratio": 1.0,
    "cofi/initial_drop_rate": 0.5,
    "cofi/distill_temperature": 2.0,
    "cofi/layer_mix": 0.9,
    "cofi/layer_matching": "v4",
    "cofi/recover_fraction": 1 / 6,
    "cofi/recover_learning_rate_ratio": 1.0,
}
"""[code] run_CoFi.sh on small tasks: 100 epochs of pruning, 20 of ramp, 20 of recovery; alpha .9/.1; v4."""

POINTS = [REFERENCE, {**REFERENCE, "cofi/target_sparsity": 0.95}]
"""Both ends of the paper's grid, so that the sampler knows what lies between."""

CHAIN = (0.6, 0.75, 0.85, 0.95)
"""[paper] its grid, thinned: each link begins with what the one before has paid for."""


def space(draw: Draw) -> dict[str, Any]:
    """A proposal."""
    return {
        "method": "cofi",
        # [paper] 2e-5, at which its teachers are fine-tuned too; PruMUX prunes at 5e-5, and 1e-5..1e-4 covers
        # what others report. In units of the teacher's rate, so that it fits models from random weights.
        "learning_rate_ratio": draw.suggest_float("learning_rate_ratio", 0.5, 5.0, log=True),
        # [paper] grid .60 to .95; down to .40 so that the front has an accurate end. It is sampled, though it
        # is no quality of a recipe: speedup is the other objective, and this is what moves along the front.
        "cofi/target_sparsity": draw.suggest_float("cofi/target_sparsity", 0.4, 0.95),
        # [code] linear; cubic after Zhu and Gupta (2017, arXiv:1710.01878) prunes early and leaves time to
        # adapt; cosine starts and lands gently [ours].
        "cofi/sparsity_schedule": draw.suggest_categorical(
            "cofi/sparsity_schedule", ["linear", "cubic", "cosine"]
        ),
        # [code] 2 of 20 epochs on large tasks, 20 of 100 on small ones; LLM-Shearing .2. Small tasks want
        # more.
        "cofi/warmup_fraction": draw.suggest_float("cofi/warmup_fraction", 0.1, 0.6),
        # [ours] below 10 the gates cannot close in time (simulated). [code] 0.01 x 1,560 steps =
        # 15.6 on small tasks; its 245 on MNLI is the same learning rate with more steps, not a choice.
        "cofi/mask_travel": draw.suggest_float("cofi/mask_travel", 10.0, 60.0, log=True),
        # [code] ties the two rates; untied, an order of magnitude around [ours].
        "cofi/multiplier_ratio": draw.suggest_float("cofi/multiplier_ratio", 0.3, 10.0, log=True),
        # [code] droprate_init .5, which its authors call "mostly a typo" [issues 51]; LLM-Shearing starts all
        # gates open.
        "cofi/initial_drop_rate": draw.suggest_float("cofi/initial_drop_rate", 0.01, 0.5),
        # [code] 2; Hinton et al. (2015) use 1 to 20, above 8 the softmax is flat.
        "cofi/distill_temperature": draw.suggest_float("cofi/distill_temperature", 1.0, 8.0, log=True),
        # [paper] .9, .7, .5 for the layers, the rest for the prediction: one number, as Adam is scale free.
        "cofi/layer_mix": draw.suggest_float("cofi/layer_mix", 0.0, 0.95),
        # [code] v3 and v4 are its README's; v6 is random matching, off is the paper's ablation. Both are
        # drawn whatever the other is: a fixed set of names lets TPE model them jointly.
        "cofi/layer_matching": draw.suggest_categorical("cofi/layer_matching", ["off", "v3", "v4", "v6"]),
        # [code] 20 of 120 epochs on small tasks, 20 of 40 on large ones.
        "cofi/recover_fraction": draw.suggest_float("cofi/recover_fraction", 0.15, 0.5),
        # [paper] 1e-5 to 3e-5 after pruning at 2e-5: .5 to 1.5; others go up to 1e-4, 5 times.
        "cofi/recover_learning_rate_ratio": draw.suggest_float(
            "cofi/recover_learning_rate_ratio", 0.25, 5.0, log=True
        ),
    }
