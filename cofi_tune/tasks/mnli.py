"""MNLI: does the premise entail the hypothesis, contradict it, or neither?

Multi-Genre Natural Language Inference (Williams et al., 2018).

- Rows: 392,702 train, 9,815 dev of train's genres (matched), 9,832 dev of others (mismatched).
  Classes: entailment, neutral, contradiction, about a third each.
- Metric: accuracy; that of the matched set is the score, the mismatched one stands beside it.
- Score: BERT-base 84.8 matched (CoFi paper, table 1).
- Quirks: two dev sets. The official train file has 12 columns, the dev files 16, with the votes of
  all annotators; `gold_label` is the label. A gold label "-" (no majority) is an error.
"""

from cofi_tune.data.task import Task, TsvLayout

TASK = Task(
    name="mnli",
    text_columns=("premise", "hypothesis"),
    label_column="label",
    labels=("entailment", "neutral", "contradiction"),
    metric="accuracy",
    metrics=("accuracy",),
    dev_splits=("dev_matched", "dev_mismatched"),
    prune_epochs=20,
    layout=TsvLayout("MNLI", ("sentence1", "sentence2"), "gold_label"),
    hub_config="mnli",
)
