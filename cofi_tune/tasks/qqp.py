"""QQP: do these two questions ask the same?

Quora Question Pairs.

- Rows: 363,846 train, 40,430 dev on the hub. Classes: not_duplicate, duplicate (about 37 %).
- Metric: accuracy leads, as in CoFi's tables; GLUE reports F1 of "duplicate" beside it.
- Score: none with a source at hand.
- Quirks: some copies of the official files have broken rows. They are an error that names the line,
  and have to be mended or taken out by hand: no row is dropped here.
"""

from cofi_tune.data.task import Task, TsvLayout

TASK = Task(
    name="qqp",
    text_columns=("question1", "question2"),
    label_column="label",
    labels=("not_duplicate", "duplicate"),
    metric="accuracy",
    metrics=("accuracy", "f1"),
    prune_epochs=20,
    layout=TsvLayout("QQP", ("question1", "question2"), "is_duplicate", labels=("0", "1")),
    hub_config="qqp",
)
