"""STS-B: how alike are the meanings of two sentences, from 0 to 5?

Semantic Textual Similarity Benchmark (Cer et al., 2017): pairs from captions, news and forums.

- Rows: 5,749 train, 1,500 dev. Regression; the mean score is 2.7 in train and 2.4 in dev.
- Metric: Pearson correlation; Spearman beside it, as GLUE reports both.
- Score: none with a source at hand.
- Quirks: one logit, on which a KL divergence is always 0: the head learns from the labels alone.
  The official files have text with unbalanced quotation marks.
"""

from cofi_tune.data.task import Task, TsvLayout

TASK = Task(
    name="stsb",
    text_columns=("sentence1", "sentence2"),
    label_column="label",
    labels=None,
    metric="pearson",
    metrics=("pearson", "spearman"),
    label_range=(0.0, 5.0),
    prune_epochs=100,
    layout=TsvLayout("STS-B", ("sentence1", "sentence2"), "score"),
    hub_config="stsb",
)
