"""QNLI: does this sentence answer the question?

Made from SQuAD (Rajpurkar et al., 2016) for GLUE: a question and a sentence of its paragraph.

- Rows: 104,743 train, 5,463 dev. Classes: entailment, not_entailment, half each.
- Metric: accuracy.
- Score: BERT-base 91.5 (teacher of the CoFi paper, its table 2).
- Quirks: the official archive is called QNLIv2; copies of the one before it have other rows under
  the same names.
"""

from cofi_tune.data.task import Task, TsvLayout

TASK = Task(
    name="qnli",
    text_columns=("question", "sentence"),
    label_column="label",
    labels=("entailment", "not_entailment"),
    metric="accuracy",
    metrics=("accuracy",),
    prune_epochs=20,
    layout=TsvLayout("QNLI", ("question", "sentence"), "label"),
    hub_config="qnli",
)
