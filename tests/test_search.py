"""The search command: what is wrong is said at once, in one line, with the right name."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cofi_tune.optuna_study import open_study

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "ray", "transformers", "mlflow", "datasets")

PROBE = f"""
import io, json, sys, contextlib
from cofi_tune.search import main
ends = []
for line in json.load(sys.stdin):
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
        try:
            code = main(line)
        except SystemExit as end:
            code = end.code
    ends.append([code, errors.getvalue(), sorted({HEAVY!r} & sys.modules.keys())])
print(json.dumps(ends))
""".replace(f"{HEAVY!r}", f"{set(HEAVY)!r}")

WRONG = [
    ("--task kola", 2, "did you mean cola?"),
    ("--task cola --space smok", 2, "did you mean smoke?"),
    ("--task cola --space nowhere/own.py", 2, "no such file"),
    ("--task cola --model minni", 2, "did you mean mini?"),
    ("--task cola --model berd-base-uncased", 2, "did you mean bert-base-uncased?"),
    ("--task cola --model ./nowhere", 2, "no such directory"),
    ("--task cola --teacher ./nowhere", 2, "no such directory"),
    ("--task cola --sampler tep", 2, "did you mean tpe?"),
    ("--task cola --scenario trhoughput", 2, "did you mean throughput?"),
    ("--task cola --trails 4", 2, "did you mean --trials?"),
    ("--task cola --trials 0", 2, "below 1"),
    ("--task cola --trials four", 2, "not a whole number"),
    ("--task cola --epochs nan", 2, "not a number from 0 up"),
    ("--task cola --name ../up", 2, "letters, digits"),
    ("--task cola --concurrency 5000", 2, "CPUs, this machine has"),
    ("--task cola --cpus-per-worker 5000", 2, "CPUs, this machine has"),
    ("--task cola --gpus-per-worker 99", 2, "needs 99 GPUs"),
    ("--task cola --gpus-per-worker 1.5", 2, "give 1 or 2"),
    ("--task cola --address ray://head:10001", 2, "ray job submit --address http://head:8265 -- python"),
    ("--task cola --address head", 2, "give auto, or HOST:PORT"),
    ("--task cola --precision fp16", 2, "unknown precision 'fp16'"),
    ("--task cola --teacher-cache 4", 2, "'4' is no size; give one such as 4GiB, 512MB, or off"),
    ("--task cola --time-budget 90", 2, "write it as 45s, 90m, 2h"),
    ("--task cola --time-budgt 90m", 2, "did you mean --time-budget?"),
    ("--task cola --gpu-hours 0", 2, "not above 0"),
    ("--task cola --gpus-per-worker 0 --gpu-hours 3", 2, "limit them by --time-budget"),
    ("--task cola --min-score nan", 2, "not a number"),
    ("--task cola --min-speedup -1", 2, "not a number from 0 up"),
    ("--task cola --enqueue nowhere.json", 2, "nowhere.json: no such file"),
    ("--task cola --enqueue points.csv", 2, "points.csv:1: unknown parameter 'cofi/target_sparsty'; did you"),
    ("--task cola --enqueue points.jsonl", 2, "points.jsonl:2: cofi/target_sparsity is 0.99, the space has"),
    ("--task cola --warm-start cola-cofi --output made", 2, "there is no study yet in"),
    ("--task cola --warm-start cola-smok --storage sqlite:///there.db", 2, "did you mean cola-smoke?"),
    ("--task cola --storage foo://x", 2, "--storage foo://x: no URL of a database"),
    ("--task cola --chain 0.9,0.6", 2, "0.9,0.6: a chain is two or more sparsities that rise"),
    ("--task cola --chain 0.6", 2, "a chain is two or more"),
    ("--task cola --chain 0.6,0.6", 2, "that rise within 0 and 1"),
    ("--task cola --chain 1.2", 2, "that rise within 0 and 1"),
    ("--task cola --chain 0.6,nan", 2, "that rise within 0 and 1"),
    ("--task cola --chain abc", 2, "'abc' is no list of numbers such as 0.6,0.75,0.9"),
    ("--task cola --chain-epochs 0", 2, "not above 0"),
    ("--task cola --chain off --chain-epochs 0.5", 2, "is about the links of a --chain; give one"),
    ("--task cola --space smoke --chain-epochs 0.5", 2, "is about the links of a --chain; give one"),
    ("--task cola --space plain.py --chain 0.6,0.9", 2, "for its method 'dense'; give --chain off"),
    ("--task cola --space odd.py", 2, "--space odd.py: CHAIN 0.9,0.5: a chain is two or more"),
    ("--task cola --min-score 7", 2, "within -1..1"),
    ("--data-dir x", 2, "--task"),
    ("", 2, "give --task"),
    ("--task grammar --data-dir x", 2, "needs no files"),
    ("--task cola --data-dir nowhere", 3, "--data-dir nowhere: no such directory"),
    ("--train-file nowhere.tsv --dev-file b.tsv --text-column a --label-column l", 3, "nowhere.tsv"),
]


@pytest.fixture(scope="module")
def ends(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[int, str, list[str]]]:
    lines = json.dumps([line.split() for line, _, _ in WRONG])
    here = tmp_path_factory.mktemp("here")
    (here / "plain.py").write_text("def space(draw):\n    return {'method': 'dense'}\n")
    (here / "odd.py").write_text("CHAIN = (0.9, 0.5)\ndef space(draw):\n    return {}\n")
    (here / "points.csv").write_text("cofi/target_sparsty\n0.8\n")
    (here / "points.jsonl").write_text('{}\n{"cofi/target_sparsity": 0.99}\n')
    open_study(f"sqlite:///{here}/there.db", "cola-smoke", {})
    done = subprocess.run(
        [sys.executable, "-c", PROBE],
        input=lines,
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
        cwd=here,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
    )
    assert not (here / "made").exists()
    return [tuple(end) for end in json.loads(done.stdout)]


@pytest.mark.parametrize("number", range(len(WRONG)), ids=[line or "nothing" for line, _, _ in WRONG])
def test_one_line_names_the_slip(ends: list[tuple[int, str, list[str]]], number: int) -> None:
    _, code, words = WRONG[number]
    ended, text, loaded = ends[number]
    assert ended == code, text
    assert words in text
    assert text.startswith("error: ")
    assert text.count("\n") == 1
    assert loaded == [], "nothing slow is imported for a look at the flags"


def test_dry_run_says_what_would_be_searched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import ray

    from cofi_tune import search

    def never(**settings: Any) -> None:
        raise AssertionError("Ray is not needed")

    monkeypatch.setattr(ray, "init", never)
    output = tmp_path / "runs"
    flags = "--task grammar --model tiny --max-train-samples 640 --epochs 2 --trials 7 --dry-run --output"
    assert search.main([*flags.split(), str(output)]) == 0
    done = capsys.readouterr()
    assert done.err == ""
    assert "cofi/mask_travel                  10 .. 60               log" in done.out
    assert "0.4 .. 0.95" not in done.out, "the chain sets the targets"
    assert "4 trials: chain 60, 75, 85, 95 %, after the first with 0.25 of its epochs each" in done.out
    assert "off, v3, v4, v6" in done.out
    assert "Space cofi: 11 parameters, 2 with choices (12 combinations) and 9 with ranges" in done.out
    assert "3 draws" in done.out
    assert "7 trials of 0.5 to 2 epochs: 640 training rows, 10 to 40 steps each" in done.out
    for words in ("Timed now", "a step of prune", "a step of recover", "Extrapolated", "CPU hours", "disk"):
        assert words in done.out
    assert not output.exists()


@pytest.mark.parametrize(
    ("flags", "status", "words"),
    [
        ("--task cola --data-dir . --model tiny", 3, "CoLA: no such directory"),
        ("--task grammar --teacher there", 2, "no model"),
    ],
)
def test_dry_run_ends_as_a_search_would(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    flags: str,
    status: int,
    words: str,
) -> None:
    from cofi_tune import search

    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path)
    assert search.main([*flags.split(), "--dry-run"]) == status
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1


def test_fresh_goes_under_a_new_name_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from cofi_tune import search, study, summary

    made = []
    document = {"trials": [1]}
    monkeypatch.setattr(study, "run", lambda config, *rest, **more: made.append(config) or document)
    monkeypatch.setattr(summary, "show", lambda *rest: None)
    flags = f"--task grammar --name mine --min-score 0.5 --time-budget 90m --output {tmp_path}"
    for _ in range(3):
        assert search.main([*flags.split(), "--fresh"]) == 0
    assert [config.name for config in made] == ["mine", "mine-2", "mine-3"]
    assert "starting anew, as mine-3\n" in capsys.readouterr().out
    assert search.main(flags.split()) == 0
    assert made[-1].name == "mine", "without the flag the old one goes on"
    assert (made[-1].min_score, made[-1].time_budget_seconds, made[-1].gpu_hours) == (0.5, 5400, None)
    assert made[-1].directory.is_dir()


def test_every_flag_is_explained() -> None:
    command = [sys.executable, "-m", "cofi_tune.search", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    flags = (
        "--task --space --trials --model --tokenizer --teacher --data-dir --workers-per-trial --concurrency"
    )
    more = "--seed --name --output --tracking-uri --storage --dry-run --max-train-samples --epochs --sampler"
    budgets = "--time-budget --gpu-hours --min-score --min-speedup --enqueue --warm-start --fresh"
    for flag in f"{flags} {more} {budgets} --scenario --selection --reference-protocol --address".split():
        assert flag in done.stdout


def test_a_jobs_log_has_whole_lines_and_no_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    from cofi_tune import search
    from cofi_tune.progress import Lines, display
    from cofi_tune.records import Progress

    class Log(io.StringIO):
        flushed: list[str]

        def flush(self) -> None:
            self.flushed = [*getattr(self, "flushed", []), self.getvalue()]

    log = Log()
    monkeypatch.setattr(sys, "stdout", log)
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.setenv(name, "1")
    with display(search._console(), "s") as watch:
        assert type(watch) is Lines
        for step in range(3):
            watch.heard("s-0000", Progress(step, 9, f"phase {step} {'x' * 200}", {"loss": 0.5}, 1e-3, 1.0))
    lines = log.getvalue().splitlines()
    assert len(lines) == 3
    assert "\x1b" not in log.getvalue()
    assert "\r" not in log.getvalue()
    assert {len(text.splitlines()) for text in log.flushed} >= {1, 2, 3}, "each line was flushed on its own"
