"""MRPC: do these two sentences say the same?

Microsoft Research Paraphrase Corpus (Dolan and Brockett, 2005): pairs from news.

- Rows: 3,668 train, 408 dev. Classes: not_equivalent, equivalent (about two thirds).
- Metric: accuracy leads, as in CoFi's tables; GLUE reports F1 of "equivalent" beside it.
- Score: CoFi's BERT-base at 60 % sparsity has 86.8, at 95 % 83.6 (model list of its README).
- Quirks: quotation marks in the official files are text; a reader that takes them for syntax merges
  rows. `--data-dir` expects `MRPC/train.tsv` and `MRPC/dev.tsv`.
"""

from cofi_tune.data.task import Task, TsvLayout

TASK = Task(
    name="mrpc",
    text_columns=("sentence1", "sentence2"),
    label_column="label",
    labels=("not_equivalent", "equivalent"),
    metric="accuracy",
    metrics=("accuracy", "f1"),
    prune_epochs=100,
    layout=TsvLayout("MRPC", ("#1 String", "#2 String"), "Quality", labels=("0", "1")),
    hub_config="mrpc",
)
