"""Grammar: is this sentence acceptable English? Generated here, needs no files and no network.

The embedded task of the demo and the tests (`cofi_tune/data/grammar.py` writes the sentences).

- Rows: what `grammar.generate` makes by default. Classes: unacceptable, acceptable, half each; many
  kinds of violation.
- Metric: Matthews correlation, as for CoLA.
- Score: a 4-layer encoder from random weights should reach 0.85; counting words stays under 0.5.
- Quirks: made by rules, so it says whether pruning works, not how good a model is at English.
"""

import numpy as np

from cofi_tune.data.task import Rows, Task


def _generate() -> dict[str, Rows]:
    from cofi_tune.data import grammar

    splits = {}
    for name, judgements in zip(("train", "dev"), grammar.generate(), strict=True):
        labels = np.array([one.acceptable for one in judgements], dtype=np.int64)
        splits[name] = Rows(tuple((one.sentence,) for one in judgements), labels)
    return splits


TASK = Task(
    name="grammar",
    text_columns=("sentence",),
    label_column="acceptable",
    labels=("unacceptable", "acceptable"),
    metric="matthews",
    metrics=("matthews", "accuracy"),
    teacher_epochs=8,
    prune_epochs=0.33,
    random_teacher_epochs=1.5,
    generate=_generate,
)
