"""`python -m cofi_tune.tasks`: the list, the card, and what it says when something is wrong."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cofi_tune import tasks
from cofi_tune.data import tokenizer
from cofi_tune.tasks.__main__ import main


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "glue" / "CoLA"
    folder.mkdir(parents=True)
    for name, count in (("train", 50), ("dev", 9)):
        lines = []
        for row in range(count):
            text = f"{name} sentence {row}" if row else "the same in both"
            lines.append(f"gj04\t{row % 2}\t\t{text}\n")
        lines.append(f"gj04\t1\t\t{' ' if name == 'dev' else 'x ' * 300}\n")
        (folder / f"{name}.tsv").write_text("".join(lines))
    return folder.parent


SLOW = {"torch", "transformers", "datasets", "pandas", "pyarrow", "ray", "mlflow", "optuna"}
"""What takes seconds to import."""


def run(*arguments: str) -> tuple[subprocess.CompletedProcess[str], set[str]]:
    """The command, and which of the slow packages it has imported."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "cofi_tune.tasks", *arguments],
        capture_output=True,
        text=True,
        timeout=300,
    )
    told = [line for line in done.stderr.splitlines(keepends=True) if line.startswith("import time:")]
    done.stderr = "".join(line for line in done.stderr.splitlines(True) if line not in told)
    return done, SLOW & {line.rpartition("|")[2].strip() for line in told}


def test_the_list_is_there_at_once() -> None:
    done, slow = run()
    assert slow == set()
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["task", *tasks.names()]
    assert "CoLA: is this sentence acceptable English?" in lines[1]


def test_the_list_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--json"]) == 0
    listed = {one["task"]: one for one in json.loads(capsys.readouterr().out)}
    assert list(listed) == tasks.names()
    assert listed["stsb"]["labels"] is None
    assert listed["mrpc"]["metrics"] == ["accuracy", "f1"]


def test_a_terminal_gets_tables(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert main([]) == 0
    said = capsys.readouterr().out
    assert "┃" in said
    assert "cola" in said


def test_the_card_in_words(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--task", "cola", "--data-dir", str(data_dir)]) == 0
    said = capsys.readouterr().out
    assert "metric   matthews (reported too: accuracy)" in said
    assert f"source   files in {data_dir}" in said
    assert "length of a row in words; --tokenizer counts tokens" in said
    assert [line.split()[0] for line in said.splitlines() if line.startswith(("tr", "se", "de"))] == [
        *("train", "selection", "dev") * 2
    ]


def test_the_card_as_json(data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = tmp_path / "tokenizer"
    tokenizer.train(["train sentence", "dev sentence x x"] * 2).save_pretrained(made)
    arguments = ["--task", "cola", "--data-dir", str(data_dir), "--json"]
    assert main(arguments) == 0
    words = json.loads(capsys.readouterr().out)
    assert main([*arguments, "--tokenizer", str(made)]) == 0
    card = json.loads(capsys.readouterr().out)
    assert words["content_hash"] == card["content_hash"]
    assert (words["unit"], card["unit"]) == ("words", "tokens")
    splits = card["splits"]
    assert [splits[name]["rows"] for name in ("train", "selection", "dev")] == [46, 5, 10]
    assert splits["dev"]["labels"] == {"unacceptable": 5, "acceptable": 5}
    assert [splits[name]["empty_texts"] for name in splits] == [0, 0, 1]
    assert sum(splits[name]["truncated"] for name in ("train", "selection")) == 1
    longest = max(splits[name]["lengths"]["percentiles"]["max"] for name in splits)
    assert longest == card["max_length"] == 128
    assert set(splits["dev"]["lengths"]["percentiles"]) == {"p50", "p90", "p95", "p99", "max"}
    seen = splits["dev"]["seen_in_train"] + splits["selection"]["seen_in_train"]
    assert seen == 1
    assert all(words["splits"][name]["truncated"] is None for name in splits)


def test_the_card_of_own_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("train", "dev"):
        rows = "".join(f"first {row},second {row},{row / 4}\n" for row in range(20))
        (tmp_path / f"{name}.csv").write_text(f"a,b,score\n{rows}")
    flags = ["--train-file", f"{tmp_path}/train.csv", "--dev-file", f"{tmp_path}/dev.csv"]
    columns = ["--text-column", "a", "--text-column", "b", "--label-column", "score"]
    assert main([*flags, *columns, "--task", "mine", "--json"]) == 0
    card = json.loads(capsys.readouterr().out)
    assert (card["task"], card["metric"]) == ("mine", "pearson")
    assert card["splits"]["dev"]["labels"] == {"min": 0.0, "mean": 2.375, "max": 4.75}
    assert card["splits"]["dev"]["lengths"]["mean"] == 4.0


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--task", "mrcp"], "unknown task 'mrcp'; did you mean mrpc? tasks: cola, grammar, mnli"),
        (["--taks", "mrpc"], "unknown argument --taks; did you mean --task?"),
        (
            ["--data-dri=x", "--task", "mrpc"],
            "unknown argument --data-dri; did you mean --data-dir?",
        ),
        (["--tas", "cola"], "unknown argument --tas; did you mean --task?"),
        (["mrpc"], "unknown argument mrpc"),
        (["--data-dir", "x"], "give --task NAME (cola, grammar, "),
        (["--tokenizer", "x"], "give --task NAME (cola, grammar, "),
        (["--task"], "argument --task: expected one argument"),
        (["--task", "grammar", "--data-dir", "x"], "--task grammar needs no files"),
        (
            ["--task", "cola", "--data-dir", "x", "--train-file", "y"],
            "--data-dir and --train-file contradict each other",
        ),
        (
            ["--train-file", "x"],
            "--train-file needs --dev-file and --text-column and --label-column too",
        ),
        (["--regression"], "--regression needs --train-file and --dev-file"),
        (["--metric", "bleu"], "argument --metric: invalid choice: 'bleu'"),
    ],
)
def test_wrong_flags_end_in_one_line_and_exit_2(
    arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        status = main(arguments)
    except SystemExit as stop:  # argparse leaves this way
        status = int(stop.code or 0)
    said = capsys.readouterr()
    assert status == 2
    assert said.out == ""
    assert said.err.startswith(f"error: {expected}")
    assert said.err.count("\n") == 1


OWN = ["--train-file", "x.csv", "--dev-file", "y.csv", "--label-column", "l"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([*OWN, "--task", "cola", "--text-column", "a"], "--task cola is a data set of that name"),
        ([*OWN, *("--text-column", "a") * 2], "--text-column is given once or twice, and every"),
        ([*OWN, "--text-column", "l"], "--text-column is given once or twice, and every"),
    ],
)
def test_own_files_with_wrong_flags(
    arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert capsys.readouterr().err.startswith(f"error: {expected}")


def test_a_typo_dies_at_once_without_a_traceback() -> None:
    done, slow = run("--task", "mrcp")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: unknown task 'mrcp'; did you mean mrpc?")
    assert slow == set()


def test_data_that_does_not_do_exits_3(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dev = data_dir / "CoLA" / "dev.tsv"
    dev.write_text(dev.read_text().replace("gj04\t1", "gj04\tx", 1))
    arguments = ["--task", "cola", "--data-dir", str(data_dir)]
    assert main(arguments) == 3
    expected = f"error: {dev}:2: column 2 (label): unknown label 'x'; expected one of 0, 1\n"
    assert capsys.readouterr().err == expected
    assert main([*arguments, "--tokenizer", "/no/such"]) == 3
    assert main([*OWN, "--text-column", "a"]) == 3
    assert capsys.readouterr().err.endswith("x.csv: no such file or directory\n")
