"""What every file in `cofi_tune/tasks/` keeps, whoever adds one."""

import importlib
import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cofi_tune import tasks
from cofi_tune.data.sources import Source, read
from cofi_tune.data.task import Task

FILES = sorted(
    path.stem for path in Path(tasks.__file__).parent.glob("*.py") if not path.stem.startswith("_")
)
GLUE = [name for name in FILES if tasks.load(name).layout is not None]
every_task = pytest.mark.parametrize("name", FILES)


def test_every_file_is_a_task() -> None:
    assert tasks.names() == FILES
    assert {"cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte", "grammar"} <= set(FILES)


@every_task
def test_name_and_card(name: str) -> None:
    assert tasks.load(name).name == name
    card = importlib.import_module(f"cofi_tune.tasks.{name}").__doc__
    assert card is not None
    for entry in ("- Rows: ", "- Metric: ", "- Score: ", "- Quirks: "):
        assert entry in card


@every_task
def test_plain_data(name: str) -> None:
    task = tasks.load(name)
    assert Task.from_json(json.loads(json.dumps(task.to_json()))) == task
    assert pickle.loads(pickle.dumps(task)) == task


@every_task
def test_budgets_and_splits(name: str) -> None:
    task = tasks.load(name)
    assert task.splits == ("train", "selection", *task.dev_splits)
    assert 0.05 <= task.selection_fraction <= 0.2
    assert task.selection_cap == 2_000
    assert min(task.teacher_epochs, task.prune_epochs, task.random_teacher_epochs) > 0
    assert task.num_labels == (1 if task.is_regression else len(task.labels or ()))


@every_task
def test_perfect_answers_score_one(name: str) -> None:
    task = tasks.load(name)
    if task.is_regression:
        labels = np.linspace(*(task.label_range or (0, 1)), 7, dtype=np.float32)
        logits = labels[:, None]
    else:
        labels = np.arange(12, dtype=np.int64) % task.num_labels
        logits = np.eye(task.num_labels, dtype=np.float32)[labels]
    found = task.score(logits, labels)
    assert tuple(found) == task.metrics
    assert found == {metric: pytest.approx(1.0) for metric in task.metrics}


@every_task
def test_it_can_be_had_from_somewhere(name: str) -> None:
    task = tasks.load(name)
    assert (task.generate is None) == (task.layout is not None) == (task.hub_config is not None)


@pytest.mark.parametrize("name", GLUE)
def test_the_official_form_is_read(name: str, tmp_path: Path) -> None:
    task = tasks.load(name)
    layout = task.layout
    assert layout is not None
    columns = layout.columns or ("index", *layout.text_columns, "other", layout.label_column)
    spellings = layout.labels or task.labels or ("0.0", "2.5", "5.000")
    (tmp_path / layout.folder).mkdir()
    for split in ("train", *task.dev_splits):
        lines = [] if layout.columns else ["\t".join(columns)]
        for row in range(12):
            fields = dict.fromkeys(columns, "?")
            fields |= {column: f"{column} {row}" for column in layout.text_columns}
            fields[layout.label_column] = spellings[row % len(spellings)]
            lines.append("\t".join(fields[column] for column in columns))
        (tmp_path / layout.folder / f"{split}.tsv").write_text("\n".join(lines))
    splits = read(task, Source.directory(tmp_path))
    assert tuple(splits) == task.splits
    dev = splits[task.dev_splits[0]]
    assert dev.texts[4] == tuple(f"{column} 4" for column in layout.text_columns)
    expected = [0.0, 2.5, 5.0] if task.is_regression else list(range(task.num_labels))
    assert dev.labels[: len(expected)].tolist() == expected
    assert dev.labels.dtype == (np.float32 if task.is_regression else np.int64)


@pytest.mark.parametrize("name", [name for name in FILES if name not in GLUE])
def test_generated_rows(name: str) -> None:
    task = tasks.load(name)
    splits, again = (read(task, Source.generated()) for _ in range(2))
    assert tuple(splits) == task.splits
    for split, rows in splits.items():
        assert rows.texts == again[split].texts
        assert len(rows.texts[0]) == len(task.text_columns)
        assert set(np.unique(rows.labels)) == set(range(task.num_labels))
    assert not set(splits["train"].texts) & set(splits["dev"].texts)


@pytest.mark.parametrize(
    ("wrong", "nearest"),
    [("clo", "cola"), ("STS-B", "stsb"), ("mrcp", "mrpc"), ("SST2", "sst2"), ("gramar", "grammar")],
)
def test_an_unknown_name_gets_the_nearest(wrong: str, nearest: str) -> None:
    with pytest.raises(ValueError, match=f"did you mean {nearest}\\? tasks: cola, .*stsb$"):
        tasks.load(wrong)


@pytest.mark.parametrize("wrong", ["", "_show", "__main__", "os", "../cola", "cola.TASK"])
def test_what_is_no_task_is_never_imported(wrong: str) -> None:
    with pytest.raises(ValueError, match="unknown task"):
        tasks.load(wrong)


def test_nothing_heavy_is_imported() -> None:
    program = (
        "import sys; from cofi_tune import tasks; from cofi_tune.data import arguments, card;"
        "from cofi_tune.data import encode, tokenizer, hub, reader;"
        "[tasks.load(name) for name in tasks.names()];"
        "heavy = ['torch', 'transformers', 'datasets', 'sklearn', 'scipy', 'pandas', 'pyarrow',"
        " 'ray', 'optuna', 'mlflow', 'huggingface_hub', 'tokenizers'];"
        "print([name for name in heavy if name in sys.modules])"
    )
    said = subprocess.check_output([sys.executable, "-c", program], text=True)
    assert said == "[]\n"
