"""SST-2: is this phrase from a film review positive?

Stanford Sentiment Treebank (Socher et al., 2013).

- Rows: 67,349 train, 872 dev. Classes: negative, positive (56 % of train, 51 % of dev).
- Metric: accuracy; the classes are nearly balanced.
- Score: BERT-base 93.1 (teacher of the CoFi paper, its table 2).
- Quirks: train has phrases cut out of sentences, dev has whole sentences of twice their length. Of
  the selection split, taken from train, 89 % stand inside a row of train (of dev, 0.2 %):
  scores on it are too high, and longer training looks better than it is.
"""

from cofi_tune.data.task import Task, TsvLayout

TASK = Task(
    name="sst2",
    text_columns=("sentence",),
    label_column="label",
    labels=("negative", "positive"),
    metric="accuracy",
    metrics=("accuracy",),
    prune_epochs=20,
    layout=TsvLayout("SST-2", ("sentence",), "label", labels=("0", "1")),
    hub_config="sst2",
)
