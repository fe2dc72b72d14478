"""RTE: does the first text entail the second?

Recognizing Textual Entailment, the yearly challenges RTE1, 2, 3 and 5 put together.

- Rows: 2,490 train, 277 dev. Classes: entailment, not_entailment, half each.
- Metric: accuracy.
- Score: CoFi's BERT-base at 60 % sparsity has 72.6, at 95 % 66.1 (model list of its README).
- Quirks: 277 dev rows: one row is 0.36 points, and runs differ by 1.5 to 3 points. Long texts:
  `max_length` cuts 12 % of the rows (BERT's vocabulary).
"""

from cofi_tune.data.task import Task, TsvLayout

TASK = Task(
    name="rte",
    text_columns=("sentence1", "sentence2"),
    label_column="label",
    labels=("entailment", "not_entailment"),
    metric="accuracy",
    metrics=("accuracy",),
    prune_epochs=100,
    layout=TsvLayout("RTE", ("sentence1", "sentence2"), "label"),
    hub_config="rte",
)
