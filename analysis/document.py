"""Everything a report says, as JSON: the fronts, how each search went, the insides of the chosen models."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from analysis import contracts, course, fronts, published, sureness
from analysis.bootstrap import Predictions, read_predictions
from analysis.runs import Run, Source, Study, studies_of, table, trial_of, trials_of

if TYPE_CHECKING:
    import pandas as pd

PREDICTIONS, PLAN = "predictions.safetensors", "plan.json"
CHOSEN = 12
"""Models of a front whose insides are shown; of a longer one, evenly spaced ones."""
NOT_CURVES = ("learning_rate", "peak_rss_mib", "rss_mib", "train_seconds")


class Report:
    """What is read once, and the document made of it."""

    def __init__(self, source: Source, output: str | None = None) -> None:
        """Read the runs.

        Args:
            source: where they are kept.
            output: what the search's output is called here; None: as it was called there.

        Raises:
            ValueError: the source cannot be read.
        """
        self.source, self.output = source, output
        runs = source.runs()
        self.studies = {study.name: study for study in studies_of(runs)}
        self.frame = table(runs)
        """See `analysis.runs.table`."""
        self._by_trial = {(run.tags.get("cofi.study", ""), trial_of(run)): run for run in trials_of(runs)}

    def document(self) -> dict[str, Any]:
        """The document; the page's specification is its reader, `analysis.page`."""
        found = [self._front(contract, frame) for contract, frame in fronts.measured(self.frame)]
        for front, label in zip(found, contracts.labels([f["contract"] for f in found]), strict=True):
            front["label"] = label
        told = [self._study(study, found) for study in self.studies.values()]
        tasks = list(dict.fromkeys(study.tag("task") for study in self.studies.values()))
        notes = self._notes(found)
        return {
            "heading": f"{', '.join(tasks) or 'No study'}: accuracy against measured speed",
            "notes": notes,
            "fronts": found,
            "studies": told,
            "published": published.figures(tasks),
            "published_source": published.SOURCE,
        }

    def _front(self, contract: contracts.Contract, frame: pd.DataFrame) -> dict[str, Any]:
        study = self.studies[frame["study"].iloc[0]]
        scenario = contract.get("scenario", "throughput")
        known = sureness.resampled(fronts.metric_of(study, frame), scenario, self._predictions)
        front = fronts.front(contract, frame, study, self._place, known)
        ours = self.frame[self.frame["study"].isin(frame["study"])]
        front["num_models"] = int(fronts.is_measured(ours).sum())
        for row in front["trials"]:
            row |= self._to_type(row) if row["on_front"] else {"load": None, "serve": None, "reproduce": None}
        return front

    def _predictions(self, study: str, trial: str) -> Predictions | None:
        content = self.source.artifact(self._by_trial[study, trial], PREDICTIONS)
        split = self.studies[study].tag("dev_split", "dev")
        try:
            return None if content is None else read_predictions(content, split)
        except ValueError:
            return None

    def _place(self, study: str, trial: str) -> str:
        output = self.output or self.studies[study].tag("output", "runs")
        return f"{output.rstrip('/')}/{study}/trials/{trial}/model"

    def _to_type(self, row: Mapping[str, Any]) -> dict[str, str | None]:
        """What to type to load a model, to serve it, and to make it again."""
        path = json.dumps(row["path"])
        run = self._by_trial[row["study"], row["trial"]]
        return {
            "load": "import cofi_tune  # tells transformers about the model type\n"
            "from transformers import AutoModelForSequenceClassification, AutoTokenizer\n\n"
            f"model = AutoModelForSequenceClassification.from_pretrained({path})\n"
            f"tokenizer = AutoTokenizer.from_pretrained({path})",
            "serve": "import cofi_tune\nfrom transformers import pipeline\n\n"
            f'classify = pipeline("text-classification", model={path})\n'
            'classify(["a text of yours"])',
            "reproduce": run.tags.get("cofi.reproduce") or None,
        }

    def _study(self, study: Study, found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        told = course.of(study, self.frame[self.frame["study"] == study.name])
        chosen = _spread(
            [r["trial"] for f in found for r in f["trials"] if r["on_front"] and r["study"] == study.name]
        )
        runs = [self._by_trial[study.name, trial] for trial in chosen]
        curves = self.source.curves(runs) if runs else {}
        return told | {
            "curves": {trial_of(run): _drawn(curves[run.run_id]) for run in runs},
            "structures": {trial_of(run): plan for run in runs if (plan := self._structure(run)) is not None},
        }

    def _structure(self, run: Run) -> dict[str, Any] | None:
        """The sizes of a model's layers."""
        content = self.source.artifact(run, PLAN)
        try:
            plan = json.loads(content or b"")
            return {
                "hidden": len(plan["hidden"]),
                **{name: int(plan[name]) for name in ("hidden_size", "num_heads", "num_ffn")},
                "heads": [len(layer["heads"]) for layer in plan["layers"]],
                "ffn": [len(layer["ffn"]) for layer in plan["layers"]],
            }
        except (ValueError, KeyError, TypeError):
            return None

    def _notes(self, found: Sequence[Mapping[str, Any]]) -> list[str]:
        notes = []
        for study in self.studies.values():
            frame = self.frame[self.frame["study"] == study.name]
            over = int((~frame["state"].isin(["running", "interrupted"])).sum())
            complete = int((frame["state"] == "complete").sum())
            wanted = study.number("trials")
            if frame.empty:
                notes.append(f"{study.name} has no trials yet.")
            elif over < len(frame) or study.tag("whole") == "running":
                of = f" of {wanted:.0f}" if wanted else ""
                notes.append(
                    f"{study.name} is not finished: {over}{of} trials are over. What follows is so far."
                )
            if over and not complete:
                notes.append(f"{study.name}: no trial gave a model; how they ended stands below.")
            if complete == 1:
                notes.append(f"{study.name}: one trial gave a model, which is no front yet.")
            impossible = frame[(frame["state"] == "complete") & ~fronts.is_measured(frame)]["trial"]
            if len(impossible):
                some = ", ".join(impossible.iloc[:3])
                notes.append(f"{study.name}: what was measured of {some} cannot be, so it is left out.")
        if not self.studies:
            notes.append("There is no study here.")
        for front in found:
            if front["contract"].get("timed") == "again" and len(front["trials"]) < front["num_models"]:
                timed, of = len(front["trials"]), front["num_models"]
                notes.append(f"{front['label']}: only {timed} of {of} models were timed.")
            if front["uncertainty"] and front["uncertainty"]["left_out"]:
                some = ", ".join(front["uncertainty"]["left_out"][:3])
                notes.append(
                    f"{front['label']}: the predictions of {some} are missing or do not fit, so their scores "
                    "have no intervals."
                )
        if len(found) > 1:
            notes.append(
                f"Models were measured in {len(found)} ways that cannot be compared; each has its own front."
            )
        return notes


def _spread(trials: Sequence[str]) -> list[str]:
    """At most `CHOSEN` of these, both ends among them."""
    unique = list(dict.fromkeys(trials))
    if len(unique) <= CHOSEN:
        return unique
    return [unique[round(i * (len(unique) - 1) / (CHOSEN - 1))] for i in range(CHOSEN)]


def _drawn(curves: Mapping[str, Sequence[tuple[int, float]]]) -> dict[str, list[list[float]]]:
    """The curves of a training that a reader may want to see."""
    wanted = (name for name in sorted(curves) if name not in NOT_CURVES and len(curves[name]) > 1)
    return {name: [[step, value] for step, value in curves[name]] for name in wanted}
