"""CoLA: is this sentence acceptable English?

Corpus of Linguistic Acceptability (Warstadt et al., 2019): sentences from linguists' books.

- Rows: 8,551 train, 1,043 dev. Classes: unacceptable, acceptable (about 70 % of the rows).
- Metric: Matthews correlation, since always answering "acceptable" has an accuracy of 0.69 on dev.
- Score: CoFi's BERT-base at 60 % sparsity has 60.4, at 95 % 38.9 (model list of its README).
- Quirks: the official files have no header line, and dev ends without a newline. A small model
  with random weights learns little here.
"""

from cofi_tune.data.task import Task, TsvLayout

TASK = Task(
    name="cola",
    text_columns=("sentence",),
    label_column="label",
    labels=("unacceptable", "acceptable"),
    metric="matthews",
    metrics=("matthews", "accuracy"),
    prune_epochs=100,
    layout=TsvLayout(
        folder="CoLA",
        text_columns=("sentence",),
        label_column="label",
        labels=("0", "1"),
        columns=("source", "label", "mark", "sentence"),
    ),
    hub_config="cola",
)
