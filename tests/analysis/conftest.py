"""Documents as `analysis` hands them to the page, and sources as it gets them, of searches that never ran."""

from __future__ import annotations

import copy
import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from analysis.runs import Curves, Run

Document = dict[str, Any]
HOSTILE = (
    "</script><img src=x onerror=window.owned=1>",
    "<a href=javascript:window.owned=2>link</a>",
    '"><svg onload=window.owned=3>',
    "{{7*7}}",
    "line\u2028end\u2029",
    "<b>bold</b> %{x} &amp; &lt;",
)


def row(number: int, stream: np.random.Generator, study: str, method: str = "cofi") -> Document:
    """A finished trial: the sparser, the faster and the duller, with luck."""
    sparsity = float(stream.uniform(0.3, 0.96))
    score = 0.58 * (1 - 0.5 * sparsity**5) + float(stream.normal(0, 0.012)) - 0.01
    speedup = 1 / (1 - 0.92 * sparsity) * float(stream.uniform(0.85, 1.1))
    trial = f"{study}-{number:04d}"
    load = f'import cofi_tune\n\npath = "runs/{study}/trials/{trial}/model"\n'
    return {
        "trial": trial,
        "study": study,
        "method": method,
        "on_front": False,
        "meets_demands": True,
        "score": score,
        "score_low": score - 0.045,
        "score_high": score + 0.043,
        "front_share": None,
        "score_share": score / 0.58,
        "scores": {"matthews": score, "accuracy": 0.6 + 0.4 * score},
        "speedup": speedup,
        "scenarios": {
            "throughput": _scenario(speedup, 32.0),
            "latency": _scenario(1 + 0.7 * (speedup - 1), 11.0),
        },
        "contribution": None,
        "sparsity": sparsity,
        "model_sparsity": 0.55 * sparsity,
        "num_parameters": round(11_171_074 * (1 - 0.55 * sparsity)),
        "macs": round(3_150_000_000 * (1 - sparsity)),
        "seconds": float(stream.uniform(48, 75)),
        "settings": {
            "cofi/target_sparsity": round(sparsity, 3),
            "cofi/layer_mix": str(stream.choice(["fixed", "dynamic"])),
            "learning_rate_ratio": float(10 ** stream.uniform(-1, 1)),
            "cofi/ramp_share": float(stream.uniform(0.1, 0.5)),
            "freeze_embeddings": bool(stream.integers(2)),
        },
        "model": f"trials/{trial}/model",
        "path": f"runs/{study}/trials/{trial}/model",
        "load": load + "model = AutoModelForSequenceClassification.from_pretrained(path)",
        "serve": f"python -m http.server --bind 127.0.0.1 --directory runs/{study}/trials/{trial}/model",
        "reproduce": f"python -m cofi_tune.prune --task cola --model mini --target-sparsity {sparsity:.3f}",
    }


def _scenario(speedup: float, dense_ms: float) -> Document:
    return {
        "speedup": speedup,
        "low": 0.95 * speedup,
        "high": 1.06 * speedup,
        "latency_ms": dense_ms / speedup,
    }


def mark_front(rows: list[Document]) -> list[Document]:
    """Sorts the rows, and marks those that no other beats."""
    rows.sort(key=lambda one: (-one["score"], -one["speedup"]))
    fastest = -math.inf
    for one in rows:
        one["on_front"] = one["speedup"] > fastest
        fastest = max(fastest, one["speedup"])
        if one["on_front"]:
            one["front_share"], one["contribution"] = 0.87, 0.12
    return rows


def front(
    rows: list[Document], name: str = "cpu-2-threads-1a2b3c4d", label: str = "CPU, 2 threads"
) -> Document:
    """A measurement contract with its rows."""
    best = [one for one in rows if one["on_front"]]
    keeping = [one for one in best if one["score_share"] >= 0.95]
    chosen = keeping[-1] if keeping else None
    words = (
        f"Fastest that keeps 95 % of the teacher's score: {chosen['trial']}, {chosen['speedup']:.2f}x with "
        f"{chosen['score']:.3f}."
        if chosen
        else "There is no model that keeps 95 % of the teacher's score."
    )
    return {
        "id": name,
        "label": label,
        "task": "cola",
        "metric": "matthews",
        "scenario": "throughput",
        "contract": {
            "device": label.split(",")[0].lower(),
            "device_name": "x86_64",
            "dtype": "float32",
            "num_threads": 2,
            "torch": "2.13.0",
            "task": "cola",
            "data": "9f1c2ab07d3e4411",
            "teacher": "teachers/cola-mini",
            "selection": "train",
            "scenario": "throughput",
        },
        "dense": {
            "score": 0.58,
            "score_low": 0.53,
            "score_high": 0.625,
            "scores": {"matthews": 0.58, "accuracy": 0.823},
            "num_parameters": 11_171_074,
            "macs": 3_150_000_000,
            "latency_ms": {"throughput": 32.0, "latency": 11.0},
        },
        "keep": 0.95,
        "min_score": None,
        "min_speedup": None,
        "trials": rows,
        "hypervolume": 1.93,
        "reference": {"score": 0.0, "speedup": 1.0},
        "knee": best[len(best) // 2]["trial"] if best else None,
        "fastest_keeping": chosen["trial"] if chosen else None,
        "recommended": chosen["trial"] if chosen else None,
        "recommendation": words,
        "neighbours": [_neighbours(a, b) for a, b in itertools.pairwise(best)],
        "uncertainty": {
            "num_resamples": 1000,
            "num_rows": 1043,
            "seed_noise": 0.008,
            "num_replicates": 3,
            "num_models": len(rows),
        },
    }


def _neighbours(better: Document, faster: Document) -> Document:
    difference, ratio = better["score"] - faster["score"], faster["speedup"] / better["speedup"]
    return {
        "better": better["trial"],
        "faster": faster["trial"],
        "difference": difference,
        "low": difference - 0.02,
        "high": difference + 0.021,
        "distinguishable": difference > 0.02,
        "speedup_ratio": ratio,
        "ratio_low": 0.93 * ratio,
        "ratio_high": 1.08 * ratio,
        "faster_for_sure": 0.93 * ratio > 1,
    }


def study(rows: list[Document], name: str) -> Document:
    """The course of a search that gave these rows."""
    ordered = sorted(rows, key=lambda one: one["trial"])
    course = [
        {
            "trial": one["trial"],
            "number": i,
            "seconds": 61.5 * (i + 1),
            "compute_hours": 2 * 61.5 * (i + 1) / 3600,
            "hypervolume": 1.93 * (1 - math.exp(-i / 6)),
        }
        for i, one in enumerate(ordered)
    ]
    best = [one for one in rows if one["on_front"]]
    steps = list(range(0, 801, 25))
    return {
        "name": name,
        "task": "cola",
        "space": "cofi",
        "model": "mini",
        "counts": {"complete": len(rows), "pruned (overshoot)": 1, "fail (error)": 2},
        "ends": [
            {
                "state": "pruned",
                "reason": "overshoot",
                "count": 1,
                "trials": [f"{name}-0101"],
                "message": "0.06 above the schedule for 100 steps",
            },
            {
                "state": "fail",
                "reason": "error",
                "count": 2,
                "trials": [f"{name}-0102", f"{name}-0103"],
                "message": "RuntimeError: out of memory",
            },
        ],
        "course": course,
        "importance": {
            "score": {"cofi/target_sparsity": 0.71, "learning_rate_ratio": 0.2, "cofi/layer_mix": 0.09},
            "speedup": {"cofi/target_sparsity": 0.97, "learning_rate_ratio": 0.02, "cofi/layer_mix": 0.01},
        },
        "importance_note": None,
        "searched": [*rows[0]["settings"]],
        "logarithmic": ["learning_rate_ratio"],
        "points": [
            {
                "trial": one["trial"],
                "state": "complete",
                "score": one["score"],
                "speedup": one["speedup"],
                "settings": one["settings"],
            }
            for one in rows[:1000]
        ],
        "points_note": "1,000 of 10,000 trials are drawn" if len(rows) > 1000 else None,
        "curves": {one["trial"]: _curves(steps, one) for one in best},
        "structures": {one["trial"]: _structure(one) for one in best},
        "command": "python -m cofi_tune.search --task cola --space cofi --model mini --trials 40",
        "versions": {"cofi": "0.1.0", "torch": "2.13.0", "optuna": "5.0.0"},
    }


def _curves(steps: list[int], one: Document) -> Document:
    target = [[s, min(1.0, s / 400) * one["sparsity"]] for s in steps]
    return {
        "selection_score": [[s, one["score"] * (1 - 0.5 * math.exp(-s / 150))] for s in steps],
        "expected_sparsity": [[s, max(0.0, v - 0.03 * math.exp(-s / 300))] for s, v in target],
        "target_sparsity": target,
        "loss": [[s, 0.3 + math.exp(-s / 200)] for s in steps],
        "distillation_loss": [[s, 0.1 + 0.5 * math.exp(-s / 120)] for s in steps],
        "layer_loss": [[s, 0.2 + 0.8 * math.exp(-s / 260)] for s in steps],
    }


def _structure(one: Document) -> Document:
    kept = 1 - one["sparsity"]
    return {
        "hidden": round(256 * (0.6 + 0.4 * kept)),
        "hidden_size": 256,
        "num_heads": 4,
        "num_ffn": 1024,
        "heads": [min(4, round(4 * kept * w + 0.4)) for w in (1.5, 1.2, 0.7, 0.4)],
        "ffn": [min(1024, round(1024 * kept * w)) for w in (1.4, 1.0, 0.8, 0.5)],
    }


def document(num_trials: int = 24, seed: int = 3, studies: int = 1, fronts: int = 1) -> Document:
    """A finished search or several, measured on one device or several."""
    stream = np.random.default_rng(seed)
    names = ["cola-cofi-mini", "cola-cofi-small-mini", "cola-reference-mini"][:studies]
    methods = ("cofi", "dense")
    rows = [
        row(i // studies, stream, names[i % studies], methods[int(studies > 1 and i % 7 == 3)])
        for i in range(num_trials)
    ]
    places = [("cpu-2-threads-1a2b3c4d", "CPU, 2 threads"), ("h100-99aa", "NVIDIA H100")][:fronts]
    share = math.ceil(len(rows) / fronts)
    parts = [mark_front(rows[i * share : (i + 1) * share]) for i in range(fronts)]
    return {
        "heading": "cola: accuracy against measured speed",
        "notes": ["Two trials were measured with other threads, so they are left out of this front."],
        "fronts": [front(part, *place) for part, place in zip(parts, places, strict=True)],
        "studies": [study([one for one in rows if one["study"] == name], name) for name in names],
        "published": [
            {
                "task": "cola",
                "model": "CoFi-CoLA-s60",
                "score": 0.604,
                "sparsity": 0.604,
                "metric": "matthews",
                "speedup": 2.0,
                "method": "CoFi",
            },
            {
                "task": "cola",
                "model": "CoFi-CoLA-s95",
                "score": 0.389,
                "sparsity": 0.951,
                "metric": "matthews",
                "speedup": 11.0,
                "method": "CoFi",
            },
        ],
        "published_source": {
            "text": "README of princeton-nlp/CoFiPruning",
            "contract": "V100 32 GB, batch 128, padded to 128 tokens",
        },
    }


def empty() -> Document:
    """A study of which nothing is known yet."""
    made = document(1)
    [one] = made["studies"]
    one |= {"counts": {}, "ends": [], "course": [], "importance": None, "points": []}
    one |= {"importance_note": "No trial is complete.", "curves": {}, "structures": {}}
    return made | {"fronts": [], "published": [], "notes": ["No trial is over yet."]}


def all_failed() -> Document:
    """A study whose trials all failed."""
    made = empty()
    [one] = made["studies"]
    ends = {"state": "fail", "reason": "error", "count": 3, "message": "ValueError: no"}
    one |= {"counts": {"fail (error)": 3}, "ends": [ends | {"trials": ["a-0000", "a-0001", "a-0002"]}]}
    return made | {"notes": ["No trial gave a model."]}


def plain() -> Document:
    """One trial, without predictions, importance, curves or structures."""
    made = document(1)
    [one] = made["studies"]
    one |= {"importance": None, "importance_note": "One trial says nothing of importance."}
    one |= {"curves": {}, "structures": {}, "counts": {"complete": 1, "running": 1}, "ends": []}
    [only] = made["fronts"]
    only |= {"uncertainty": None, "neighbours": [], "knee": None}
    only["dense"] |= {"score_low": None, "score_high": None}
    only["trials"][0] |= {"score_low": None, "score_high": None, "front_share": None, "reproduce": None}
    return made | {"notes": ["The search is still running: 1 of 2 trials is over."], "published": []}


def hostile() -> Document:
    """The same document with markup in every string that a user or a library can set."""
    text = json.dumps(document(12, studies=2))
    names = ["cola-cofi-mini", "cola-cofi-small-mini", "matthews", "cofi/layer_mix", "fixed", "RuntimeError"]
    for name, payload in zip(names, HOSTILE, strict=True):
        text = text.replace(name, json.dumps(name + payload)[1:-1])
    made: Document = json.loads(text)
    made["heading"] += HOSTILE[0]
    made["notes"] = list(HOSTILE)
    for one in made["fronts"]:
        one["label"] += HOSTILE[2]
        one["contract"]["device_name"] = HOSTILE[1]
        one["recommendation"] += HOSTILE[0]
        for each in one["trials"]:
            each["method"] += HOSTILE[1]
            each["load"] += HOSTILE[0]
            each["settings"][HOSTILE[0]] = HOSTILE[1]
    for one in made["studies"]:
        one["ends"][0]["message"] = HOSTILE[0]
        one["command"] += HOSTILE[2]
        one["versions"][HOSTILE[0]] = HOSTILE[1]
        one["searched"].append(HOSTILE[0])
    for one in made["published"]:
        one["model"] += HOSTILE[1]
    made["published_source"]["text"] = HOSTILE[0]
    return made


MAKERS: dict[str, Callable[..., Document]] = {
    "search": document,
    "empty": empty,
    "all failed": all_failed,
    "plain": plain,
    "hostile": hostile,
}


@pytest.fixture(scope="session")
def make_document() -> Callable[..., Document]:
    """A document by its kind; keywords go to `document`."""

    def make(kind: str = "search", **sizes: int) -> Document:
        return copy.deepcopy(MAKERS[kind](**sizes))

    return make


@pytest.fixture(scope="session")
def payloads() -> tuple[str, ...]:
    """See `HOSTILE`."""
    return HOSTILE


MakeSource = Callable[..., "Made"]
ROWS = 400
CONTRACT = {
    "device": "cpu",
    "device_name": "x86_64",
    "num_threads": "2",
    "scenario": "throughput",
    "data": "d",
}
STUDY = {
    "task": "cola",
    "space": "cofi",
    "model": "mini",
    "metric": "accuracy",
    "dev_split": "dev",
    "reference_score": "0.5",
    "min_score": "None",
    "min_speedup": "None",
    "trials": "8",
    "output": "runs",
    "command": "python -m cofi_tune.search --task cola",
}


class Made:
    """An `analysis.runs.Source` in memory: more sparsity is faster and worse."""

    def __init__(self, *names: str, seed: int = 0) -> None:
        self.names = names or ("s",)
        self.stream = np.random.Generator(np.random.PCG64(seed))
        self.labels = self.stream.integers(0, 2, ROWS, dtype=np.uint8)
        self.tags: dict[str, str] = dict(STUDY)
        self.trials: list[Run] = []
        self.files: dict[tuple[str, str], bytes] = {}
        self.told: dict[str, Curves] = {}
        self.has_own_run = True

    def add(
        self,
        state: str = "complete",
        *,
        sparsity: float | None = None,
        params: Mapping[str, Any] | None = None,
        contract: Mapping[str, str] = CONTRACT,
        predictions: bool = True,
        study: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> Run:
        """One more trial."""
        name = study or self.names[0]
        trial = f"{name}-{len(self.trials):04d}"
        cut = float(self.stream.uniform(0.4, 0.95)) if sparsity is None else sparsity
        drawn = {"cofi/target_sparsity": cut, "learning_rate_ratio": float(self.stream.uniform(0.5, 2))}
        drawn |= params or {}
        settings = {"method": "cofi", "seed": 0, "log10_learning_rate_ratio": 0.0} | drawn
        said = {"cofi.study": name, "cofi.study_id": f"uid {name}", "cofi.kind": "trial"}
        said |= {"cofi.trial_id": trial, "cofi.state": state, "cofi.method": "cofi"}
        said |= {"cofi.searched": json.dumps(sorted(drawn)), "cofi.reproduce": f"prune {trial}"}
        said |= {f"cofi.{key}": value for key, value in self.tags.items()}
        metrics: dict[str, float] = {"train_seconds": 9.5, "loss/layer": 0.1}
        if state == "complete":
            said |= {f"contract.{key}": value for key, value in contract.items()}
            metrics |= self._measured(trial, cut, predictions)
        run = Run(trial, trial, {k: str(v) for k, v in settings.items()}, metrics, said | dict(tags or {}))
        self.trials.append(run)
        steps = range(10, 110, 10)
        self.told[trial] = {
            "selection_score": [(step, 0.5 + step / 400) for step in steps],
            "expected_sparsity": [(step, min(cut, step / 50)) for step in steps],
            "target_sparsity": [(step, min(cut, step / 40)) for step in steps],
            "loss/layer": [(step, 1 / step) for step in steps],
        }
        return run

    def _measured(self, trial: str, sparsity: float, predictions: bool) -> dict[str, float]:
        right = self.stream.random(ROWS) < 0.95 - 0.4 * sparsity**4
        dense = np.where(self.stream.random(ROWS) < 0.92, self.labels, 1 - self.labels)
        predicted = np.where(right, self.labels, 1 - self.labels)
        rows = {"labels": self.labels, "predicted": predicted, "dense": dense}
        if predictions:
            said = {f"dev/{name}": np.ascontiguousarray(row.astype(np.uint8)) for name, row in rows.items()}
            self.files[trial, "predictions.safetensors"] = save(said)
        layers = [{"heads": [0, 1], "ffn": [*range(int(100 * (1 - sparsity)))]}, {"heads": [], "ffn": [3]}]
        plan = {"hidden": [*range(50)], "hidden_size": 64, "num_heads": 4, "num_ffn": 100, "layers": layers}
        self.files[trial, "plan.json"] = json.dumps(plan).encode()
        speedup = 1 / (1.05 - sparsity)
        measured = {
            "score": float(right.mean()),
            "score/accuracy": float(right.mean()),
            "teacher/accuracy": 0.92,
            "dense/num_parameters": 1000.0,
            "dense/macs": 5000.0,
            "speedup": speedup,
            "sparsity": sparsity,
            "model_sparsity": sparsity / 2,
            "num_parameters": float(int(1000 * (1 - sparsity / 2))),
            "macs": float(int(5000 * (1 - sparsity))),
            "seconds": 10.0,
        }
        for scenario, factor in (("throughput", 1.0), ("latency", 0.8)):
            fast = factor * speedup
            timing = {"speedup": fast, "speedup_low": 0.95 * fast, "speedup_high": 1.05 * fast}
            timing |= {"latency_ms": 4 / fast, "dense_ms": 4.0, "num_pairs": 50.0}
            measured |= {f"{scenario}/{key}": value for key, value in timing.items()}
        return measured

    def runs(self) -> list[Run]:
        """See `analysis.runs.Source`."""
        own = [
            Run(
                "",
                f"{name} (study)",
                {},
                {},
                {"cofi.study": name, "cofi.kind": "study", **{f"cofi.{k}": v for k, v in self.tags.items()}},
            )
            for name in self.names
            if self.has_own_run
        ]
        return [*own, *self.trials]

    def curves(self, runs: Sequence[Run]) -> dict[str, Curves]:
        """See `analysis.runs.Source`."""
        return {run.run_id: self.told[run.run_id] for run in runs}

    def artifact(self, run: Run, name: str) -> bytes | None:
        """See `analysis.runs.Source`."""
        return self.files.get((run.run_id, name))


@pytest.fixture
def make_source() -> MakeSource:
    """An empty source, or one with so many complete trials."""

    def make(complete: int = 0, *names: str, seed: int = 0) -> Made:
        made = Made(*names, seed=seed)
        for _ in range(complete):
            made.add()
        return made

    return make
