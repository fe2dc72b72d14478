"""One run from the command line: what it refuses, and what is there when it is done."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shutil
import signal
from pathlib import Path

import pytest

from cofi_tune import prune
from cofi_tune.prune_view import View
from cofi_tune.records import Progress
from cofi_tune.terminal import INTERRUPTED_EXIT, USAGE_EXIT

SMALL = "--task grammar --model tiny --max-train-samples 480 --epochs 4 --teacher-epochs 1 --threads 1"
EASY = "--option cofi/mask_travel=40 --option cofi/warmup_fraction=0.3"


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("", "one of the arguments --target-sparsity --chain is required"),
        ("--target-sparsity 1.2", "--target-sparsity"),
        ("--target-sparsity 0.5 --chain 0.5,0.6", "not allowed with argument"),
        ("--chain 0.9,0.6", "a chain is two or more sparsities that rise"),
        ("--chain 0.6", "a chain is two or more sparsities that rise"),
        ("--chain off", "say how much to prune by --target-sparsity"),
        ("--target-sparsity 0.5 --chain-epochs 0.5", "about the links of a --chain"),
        ("--chain 0.5,0.6 --chain-epochs 0", "--chain-epochs"),
        ("--chain 0.5,0.6 --option cofi/target_sparsity=0.3", "is said by --target-sparsity or --chain"),
        ("--target-sparsity 0.5 --option typo", "write NAME=VALUE"),
        ("--target-sparsity 0.5 --option cofi/typo=3", "typo"),
        ("--target-sparsity 0.5 --model nosuch", "nosuch"),
        ("--target-sparsity 0.5 --teacher nosuch", "no model directory"),
        ("--target-sparsity 0.5 --device cuda:99", "cuda"),
    ],
)
def test_refused_in_a_line(
    flags: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = [*["--task", "grammar", "--output"], str(tmp_path / "out"), *flags.split()]
    try:
        status = prune.main(line)
    except SystemExit as ended:  # argparse's own way
        status = int(ended.code or 0)
    said = capsys.readouterr().err
    assert status == USAGE_EXIT
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert words in said


def chained(output: Path) -> int:
    """Prune a chain of two links."""
    return prune.main([*f"{SMALL} {EASY} --chain 0.4,0.6 --chain-epochs 0.5 --output".split(), str(output)])


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """A chain that nothing happened to: where it is, and what was said of it, to either stream."""
    output = tmp_path_factory.mktemp("chain")
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        assert chained(output) == 0
    return output, out.getvalue(), err.getvalue()


def test_a_chain_leaves_a_model_for_each_target(undisturbed: tuple[Path, str, str]) -> None:
    output, out, err = undisturbed
    links = [output / "link-1", output / "link-2"]
    made = [json.loads((link / "measurement.json").read_text()) for link in links]
    assert [one["target_sparsity"] for one in made] == [0.4, 0.6]
    assert made[0]["num_parameters"] > made[1]["num_parameters"]
    assert all((link / "model" / "model.safetensors").is_file() for link in links)
    assert not [path for link in links for path in link.iterdir() if path.name in ("checkpoints", "link")]
    assert not list(output.glob("link-*/done.json"))
    assert "link 1/2 step 60/60 recover" in err
    assert "link 2/2 step 30/30 recover" in err
    assert out.count("speedup") == 4, "each link has its table"


def test_ctrl_c_saves_and_the_same_command_makes_nothing_twice(
    undisturbed: tuple[Path, str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("data", "teachers"):
        shutil.copytree(undisturbed[0] / name, tmp_path / name)
    shown = View.report

    def interrupted(view: View, who: str, progress: Progress) -> None:
        shown(view, who, progress)
        if who == "link 2/2" and 10 <= progress.step < 20:
            signal.raise_signal(signal.SIGINT)
            monkeypatch.setattr(View, "report", shown)

    monkeypatch.setattr(View, "report", interrupted)
    assert chained(tmp_path) == INTERRUPTED_EXIT
    assert "the same command goes on" in capsys.readouterr().err
    assert chained(tmp_path) == 0
    said = capsys.readouterr().err
    assert "link 1/2" not in said, "it was finished"
    steps = re.findall(r"link 2/2 step (\d+)", said)
    assert min(map(int, steps)) > 10, "from the checkpoint"
    for link in ("link-1", "link-2"):
        name = f"{link}/model/model.safetensors"
        assert (tmp_path / name).read_bytes() == (undisturbed[0] / name).read_bytes()
