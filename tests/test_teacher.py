"""A teacher is made once, found again, and checked when it is given."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from cofi_tune import evaluate
from cofi_tune import teacher as teachers
from cofi_tune.data.encoded import EncodedTask
from cofi_tune.data.task import Task
from cofi_tune.modeling_cofi import CofiForSequenceClassification
from cofi_tune.records import Progress

MakeModel = Callable[..., CofiForSequenceClassification]
MakeTask = Callable[..., EncodedTask]


@pytest.fixture
def prepare(toy_on_disk: EncodedTask, tmp_path: Path) -> Callable[..., tuple[Path, int]]:
    """Prepares a teacher; says where it lies and how many reports its training made."""

    def run(**changes: Any) -> tuple[Path, int]:
        reports: list[Progress] = []
        values = {"data": toy_on_disk, "model": "tiny", "output": tmp_path, "epochs": 1.0, **changes}
        data, model, output = (values.pop(name) for name in ("data", "model", "output"))
        return teachers.prepare(data, model, output, on_progress=reports.append, **values), len(reports)

    return run


def test_it_is_trained_once_and_found_again(prepare: Callable[..., tuple[Path, int]], tmp_path: Path) -> None:
    first, trained = prepare()
    again, found = prepare()
    assert trained > 0
    assert (again, found) == (first, 0)
    assert first.parent == tmp_path / "teachers"
    assert first.name.startswith("toy-")
    assert list((tmp_path / "teachers").glob("[!.]*")) == [first]


@pytest.mark.parametrize("change", [{"epochs": 1.25}, {"seed": 1}, {"selection": "dev"}], ids=str)
def test_what_makes_another_teacher_trains_one(prepare: Callable[..., tuple[Path, int]], change: Any) -> None:
    first, _ = prepare()
    other, trained = prepare(**change)
    assert other != first
    assert trained > 0


def test_other_rows_make_another_teacher(
    prepare: Callable[..., tuple[Path, int]], toy_on_disk: EncodedTask
) -> None:
    first, _ = prepare()
    other, trained = prepare(data=replace(toy_on_disk, content_hash="other rows"))
    assert other != first
    assert trained > 0


def test_a_checkpoint_is_known_by_its_bytes(
    prepare: Callable[..., tuple[Path, int]], make_model: MakeModel, tmp_path: Path
) -> None:
    for name, seed in (("here", 0), ("there", 0), ("other", 1)):
        make_model(layers=1, seed=seed).save_pretrained(tmp_path / name)
    here, there, other = (prepare(model=str(tmp_path / name)) for name in ("here", "there", "other"))
    assert here[1] > 0
    assert there == (here[0], 0)
    assert other[0] != here[0]


def test_the_same_seed_makes_the_same_teacher(
    prepare: Callable[..., tuple[Path, int]], tmp_path: Path
) -> None:
    torch.manual_seed(1)
    first = teachers.load(prepare(output=tmp_path / "a")[0])
    torch.manual_seed(2)
    again = teachers.load(prepare(output=tmp_path / "b")[0])
    weights = first.state_dict()
    assert all(torch.equal(weight, weights[name]) for name, weight in again.state_dict().items())


def test_it_is_saved_whole(prepare: Callable[..., tuple[Path, int]], toy_on_disk: EncodedTask) -> None:
    directory, _ = prepare(epochs=6.0)
    model = teachers.load(directory)
    assert not model.training
    assert model.config.id2label == {0: "no", 1: "yes"}
    assert model.config.label2id == {"no": 0, "yes": 1}
    assert model.config.pad_token_id == toy_on_disk.pad_token_id
    assert {"config.json", "model.safetensors", "vocab.txt", "modeling_cofi.py"} <= {
        path.name for path in directory.iterdir()
    }
    assert json.loads((directory / "made_from.json").read_text())["model"] == "tiny"
    assert evaluate.score(model, toy_on_disk.task, toy_on_disk.splits["dev"])["accuracy"] > 0.8


def test_a_teacher_of_a_regression(
    prepare: Callable[..., tuple[Path, int]], toy_on_disk: EncodedTask, toy_regression: EncodedTask
) -> None:
    data = replace(toy_regression, tokenizer_directory=toy_on_disk.tokenizer_directory)
    model = teachers.load(prepare(data=data)[0])
    assert (model.config.num_labels, model.config.problem_type) == (1, "regression")


def test_an_interrupted_training_leaves_no_teacher(
    prepare: Callable[..., tuple[Path, int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("shutil.copytree", broken)
    with pytest.raises(KeyboardInterrupt):
        prepare()
    monkeypatch.undo()
    directory, trained = prepare()
    assert trained > 0
    assert teachers.load(directory).config.num_labels == 2


def given(model: CofiForSequenceClassification, directory: Path, names: tuple[str, ...] | None = None) -> str:
    """A teacher as a user brings it."""
    if names is not None:
        model.config.id2label = dict(enumerate(names))
        model.config.label2id = {name: index for index, name in enumerate(names)}
    model.save_pretrained(directory)
    return str(directory)


def permuted(model: CofiForSequenceClassification) -> CofiForSequenceClassification:
    """The same teacher with its two outputs exchanged."""
    with torch.no_grad():
        model.classifier.weight.copy_(model.classifier.weight.flip(0).clone())
        model.classifier.bias.copy_(model.classifier.bias.flip(0).clone())
    return model


def test_a_given_teacher_is_taken(
    prepare: Callable[..., tuple[Path, int]],
    teacher: CofiForSequenceClassification,
    toy: EncodedTask,
    tmp_path: Path,
) -> None:
    source = given(teacher, tmp_path / "mine")
    directory, trained = prepare(given=source)
    assert trained == 0
    assert prepare(given=source)[0] == directory
    taken = CofiForSequenceClassification.from_pretrained(directory)
    assert taken.config.id2label == {0: "no", 1: "yes"}
    ours, theirs = (evaluate.predict(model, toy.splits["dev"]) for model in (taken, teacher))
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


@pytest.mark.parametrize("names", [("yes", "no"), ("YES", "No")])
def test_labels_in_another_order_are_put_in_order_by_name(
    prepare: Callable[..., tuple[Path, int]],
    teacher: CofiForSequenceClassification,
    toy: EncodedTask,
    tmp_path: Path,
    names: tuple[str, ...],
) -> None:
    expected = evaluate.predict(teacher, toy.splits["dev"])
    directory, _ = prepare(given=given(permuted(teacher), tmp_path / "mine", names))
    taken = CofiForSequenceClassification.from_pretrained(directory)
    np.testing.assert_allclose(evaluate.predict(taken, toy.splits["dev"]), expected, atol=1e-6)
    assert taken.config.id2label == {0: "no", 1: "yes"}


@pytest.mark.parametrize("names", [None, ("no", "yes")])
def test_behaviour_in_another_order_is_refused(
    prepare: Callable[..., tuple[Path, int]],
    teacher: CofiForSequenceClassification,
    tmp_path: Path,
    names: tuple[str, ...] | None,
) -> None:
    source = given(permuted(teacher), tmp_path / "mine", names)
    with pytest.raises(ValueError, match=r"with its labels in the order \(1, 0\)"):
        prepare(given=source)
    assert not (tmp_path / "teachers").exists()


def test_labels_of_another_task_are_refused(
    prepare: Callable[..., tuple[Path, int]], teacher: CofiForSequenceClassification, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="the teacher's labels are entailment, neutral; toy has no, yes"):
        prepare(given=given(teacher, tmp_path / "mine", ("entailment", "neutral")))


def test_another_number_of_labels_is_refused(
    prepare: Callable[..., tuple[Path, int]], make_model: MakeModel, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="it has 3 labels, toy has 2"):
        prepare(given=given(make_model(num_labels=3), tmp_path / "mine"))


def test_a_stock_bert_can_teach(prepare: Callable[..., tuple[Path, int]], tmp_path: Path) -> None:
    config = transformers.BertConfig(
        vocab_size=40, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48
    )
    bert = transformers.BertForSequenceClassification(config).eval()
    bert.save_pretrained(tmp_path / "bert")
    ids = torch.arange(12).view(2, 6)
    with torch.no_grad():
        expected = bert(ids).logits
        logits = teachers.load(prepare(given=str(tmp_path / "bert"))[0])(ids).logits
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)


def task_of(*labels: str) -> Task:
    return Task(
        "t",
        ("text",),
        "label",
        labels or None,
        *(("accuracy", ("accuracy",)) if labels else ("pearson", ("pearson",))),
    )


@pytest.mark.parametrize(
    ("labels", "names", "order"),
    [
        (("entailment", "neutral", "contradiction"), ("CONTRADICTION", "Neutral", "entailment"), [2, 1, 0]),
        (("not_entailment", "entailment"), ("Not Entailment", "Entailment"), [0, 1]),
        (("a", "b", "c"), ("b", "c", "a"), [2, 0, 1]),
        (("a", "b"), ("LABEL_0", "LABEL_1"), [0, 1]),
        (("a", "b"), None, [0, 1]),
        ((), ("score",), [0]),
    ],
)
def test_order_of_labels(labels: tuple[str, ...], names: tuple[str, ...] | None, order: list[int]) -> None:
    assert teachers.label_order(task_of(*labels), names) == order


def behaving(
    data: EncodedTask,
    monkeypatch: pytest.MonkeyPatch,
    num_labels: int,
    answer: Callable[[np.ndarray], np.ndarray],
) -> None:
    """Checks a teacher that gives this answer to rows of these classes."""
    labels = np.arange(120) % num_labels
    splits = {**data.splits, "selection": replace(data.splits["selection"], labels=labels)}
    task = task_of(*[f"class{n}" for n in range(num_labels)])
    monkeypatch.setattr(evaluate, "predict", lambda model, split: np.eye(num_labels)[answer(labels)])
    teachers.check_behaviour(None, replace(data, task=task, splits=splits), "selection", "mine")  # type: ignore[arg-type]


def test_behaviour_of_many_classes_is_checked_in_time(
    toy: EncodedTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    behaving(toy, monkeypatch, 12, lambda labels: labels)
    with pytest.raises(ValueError, match=r"accuracy 0\.000, but 1\.000 .* order \(11, 0, 1, 2, 3, 4, 5"):
        behaving(toy, monkeypatch, 12, lambda labels: (labels + 1) % 12)


def test_a_weak_teacher_is_no_permuted_one(toy: EncodedTask, monkeypatch: pytest.MonkeyPatch) -> None:
    behaving(toy, monkeypatch, 3, lambda labels: labels * 0)
    behaving(toy, monkeypatch, 3, lambda labels: np.where(np.arange(120) % 10 < 6, labels, (labels + 1) % 3))
    with pytest.raises(ValueError, match=r"order \(2, 1, 0\)"):
        behaving(toy, monkeypatch, 3, lambda labels: 2 - labels)


def test_rates_of_random_and_pretrained_models() -> None:
    assert teachers.base_learning_rate("mini") == teachers.RANDOM_LEARNING_RATE > 1e-4
    assert teachers.base_learning_rate("bert-base-uncased") == 2e-5
