"""What a report says of searches that are whole, half, empty, failed, or measured in several ways."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from analysis import fronts, sentences
from analysis.document import CHOSEN, Report

MakeSource = Callable[..., Any]


def document(source: Any) -> dict[str, Any]:
    made = Report(source).document()
    json.dumps(made, allow_nan=False)
    return made


def test_a_whole_search(make_source: MakeSource) -> None:
    source = make_source(8)
    made = document(source)
    [front] = made["fronts"]
    assert made["notes"] == []
    assert made["heading"] == "cola: accuracy against measured speed"
    assert (front["metric"], front["scenario"], front["label"]) == (
        "accuracy",
        "throughput",
        "CPU, 2 threads",
    )
    assert [row["score"] for row in front["trials"]] == sorted(
        (r["score"] for r in front["trials"]), reverse=True
    )
    kept = [row for row in front["trials"] if row["on_front"]]
    assert 0 < len(kept) < 8
    for row in kept:
        assert row["score_low"] <= row["score"] <= row["score_high"]
        assert 0 < row["front_share"] <= 1
        assert row["contribution"] >= 0
        assert row["reproduce"] == f"prune {row['trial']}"
        assert f"runs/s/trials/{row['trial']}/model" in row["load"]
    assert front["dense"]["score"] == 0.92
    assert front["dense"]["score_low"] < 0.92 < front["dense"]["score_high"]
    assert front["dense"]["latency_ms"] == {"throughput": 4.0, "latency": 4.0}
    assert front["uncertainty"]["num_rows"] == 400
    assert len(front["neighbours"]) == len(kept) - 1
    assert front["hypervolume"] == pytest.approx(made["studies"][0]["course"][-1]["hypervolume"])
    [study] = made["studies"]
    assert study["counts"] == {"complete": 8}
    assert study["searched"] == ["cofi/target_sparsity", "learning_rate_ratio"]
    assert study["logarithmic"] == ["learning_rate_ratio"]
    assert set(study["curves"]) == set(study["structures"]) == {row["trial"] for row in kept}
    assert study["structures"][kept[0]["trial"]]["heads"] == [2, 0]
    assert study["course"][-1]["seconds"] == 80.0


def test_no_study_at_all(make_source: MakeSource) -> None:
    source = make_source()
    source.has_own_run = False
    made = document(source)
    assert made["notes"] == ["There is no study here."]
    assert made["fronts"] == made["studies"] == []


def test_an_empty_study(make_source: MakeSource) -> None:
    made = document(make_source())
    assert made["notes"] == ["s has no trials yet."]
    assert made["fronts"] == []
    assert made["studies"][0]["counts"] == {}


def test_one_trial(make_source: MakeSource) -> None:
    made = document(make_source(1))
    assert made["notes"] == ["s: one trial gave a model, which is no front yet."]
    [front] = made["fronts"]
    assert front["neighbours"] == []
    assert front["knee"] is None
    assert front["trials"][0]["on_front"]


def test_all_failed(make_source: MakeSource) -> None:
    source = make_source()
    for reason in ("error", "error", "non_finite"):
        source.add("fail", tags={"cofi.reason": reason, "cofi.message": f"because of {reason}"})
    made = document(source)
    assert made["notes"] == ["s: no trial gave a model; how they ended stands below."]
    [study] = made["studies"]
    assert study["counts"] == {"fail (error)": 2, "fail (non_finite)": 1}
    assert [(e["reason"], e["count"], e["message"]) for e in study["ends"]] == [
        ("error", 2, "because of error"),
        ("non_finite", 1, "because of non_finite"),
    ]
    assert study["importance"] is None
    assert [point["hypervolume"] for point in study["course"]] == [0.0, 0.0, 0.0]
    assert study["course"][-1]["seconds"] == 28.5


def test_half_finished(make_source: MakeSource) -> None:
    source = make_source(3)
    source.add("running")
    made = document(source)
    assert made["notes"] == ["s is not finished: 3 of 8 trials are over. What follows is so far."]
    assert made["studies"][0]["counts"] == {"complete": 3, "running": 1}
    assert len(made["fronts"][0]["trials"]) == 3


def test_contracts_have_fronts_of_their_own(make_source: MakeSource) -> None:
    source = make_source(4)
    other = {"device": "cuda", "device_name": "NVIDIA <i>X</i>", "scenario": "throughput", "data": "d"}
    for _ in range(3):
        source.add(contract=other)
    source.add(contract=other | {"data": "e"})
    made = document(source)
    labels = [front["label"] for front in made["fronts"]]
    assert labels == ["CPU, 2 threads", "NVIDIA <i>X</i>, data d", "NVIDIA <i>X</i>, data e"]
    assert all(note.count("only") == 0 for note in made["notes"])
    assert [len(front["trials"]) for front in made["fronts"]] == [4, 3, 1]
    assert len({front["id"] for front in made["fronts"]}) == 3
    assert "3 ways" in made["notes"][-1]


def test_models_of_several_contracts_are_refused_with_the_difference(make_source: MakeSource) -> None:
    source = make_source(2)
    source.add(
        contract={"device": "cpu", "device_name": "x86_64", "num_threads": "1", "scenario": "throughput"}
    )
    report = Report(source)
    contracts = fronts.own_contracts(report.frame)
    assert len(contracts) == 2
    with pytest.raises(ValueError, match=r"share no front .*num_threads: 2 and 1"):
        fronts.front(contracts[0], report.frame, report.studies["s"], lambda study, trial: "")


def test_timings_taken_later_are_a_front_of_their_own(make_source: MakeSource) -> None:
    source = make_source(4)
    again = {"device": "cpu", "num_threads": "1", "scenario": "throughput", "data": "d", "timed": "again"}
    for number, run in enumerate(source.trials[:3]):
        run.metrics.update({f"one/throughput/{name}": 9.0 + number for name in ("speedup", "latency_ms")})
        run.tags["timing.one"] = json.dumps(again)
    made = document(source)
    assert [front["label"] for front in made["fronts"]] == ["CPU, 2 threads", "CPU, 1 thread"]
    second = made["fronts"][1]
    assert sorted(row["speedup"] for row in second["trials"]) == [9.0, 10.0, 11.0]
    assert all([*row["scenarios"]] == ["throughput"] for row in second["trials"])
    assert made["fronts"][0]["trials"][0]["speedup"] < 9
    assert "CPU, 1 thread: only 3 of 4 models were timed." in made["notes"]
    assert "Only 3 of 4 models were timed this way." in sentences.timing(second)


def test_without_predictions_nothing_is_said_of_sureness(make_source: MakeSource) -> None:
    source = make_source()
    for _ in range(3):
        source.add(predictions=False)
    [front] = document(source)["fronts"]
    assert front["uncertainty"] is None
    assert front["trials"][0]["score_low"] is None
    assert front["dense"]["score_low"] is None
    assert front["neighbours"] == []


def test_predictions_of_other_rows_or_other_scores_are_left_out(make_source: MakeSource) -> None:
    source = make_source(4)
    names = [run.run_id for run in source.trials]
    first, second = ((name, "predictions.safetensors") for name in names[:2])
    source.files[first] = b"torn"
    source.files[second] = make_source(1, seed=9).files["s-0000", "predictions.safetensors"]
    [front] = document(source)["fronts"]
    unsure = {row["trial"] for row in front["trials"] if row["score_low"] is None}
    assert {names[0], names[1]} <= unsure
    assert set(front["uncertainty"]["left_out"]) == unsure
    assert front["uncertainty"]["num_models"] == 4


def test_models_without_predictions_still_compete(make_source: MakeSource) -> None:
    source = make_source()
    best, worse = source.add(sparsity=0.8), source.add(sparsity=0.79)
    best.metrics["score"] = 0.99
    worse.metrics["throughput/speedup"] = best.metrics["throughput/speedup"] / 2
    del source.files[best.run_id, "predictions.safetensors"]
    made = document(source)
    rows = {row["trial"]: row for row in made["fronts"][0]["trials"]}
    assert rows[worse.run_id]["front_share"] < 0.01
    assert rows[best.run_id]["front_share"] is None
    assert f"the predictions of {best.run_id} are missing" in made["notes"][-1]


@pytest.mark.parametrize(
    ("name", "value"),
    [("speedup", 1.797e308), ("score", -1e300), ("score", 3.0), ("speedup", -3.0), ("speedup", 0.0)],
)
def test_what_cannot_have_been_measured_is_left_out(make_source: MakeSource, name: str, value: float) -> None:
    source = make_source(3)
    source.trials[1].metrics[name] = value
    made = document(source)
    assert len(made["fronts"][0]["trials"]) == 2
    assert made["notes"] == ["s: what was measured of s-0001 cannot be, so it is left out."]
    assert len(made["studies"][0]["course"]) == 3


@pytest.mark.parametrize("value", [-3.0, 0.0, 1.797e308])
def test_timings_that_cannot_be_are_none(make_source: MakeSource, value: float) -> None:
    source = make_source(3)
    for part in ("speedup", "speedup_low", "dense_ms"):
        source.trials[1].metrics[f"latency/{part}"] = value
    rows = {row["trial"]: row for row in document(source)["fronts"][0]["trials"]}
    assert rows["s-0001"]["scenarios"]["latency"]["speedup"] is None
    assert rows["s-0000"]["scenarios"]["latency"]["speedup"] > 0


@pytest.mark.parametrize("tag", ["{", "[]", '"x"', "3"])
def test_a_damaged_contract_of_a_timing_is_no_front(make_source: MakeSource, tag: str) -> None:
    source = make_source(3)
    source.trials[0].metrics["one/throughput/speedup"] = 9.0
    source.trials[0].tags["timing.one"] = tag
    assert len(document(source)["fronts"]) == 1


def test_a_dense_model_that_was_not_equally_fast_is_said(make_source: MakeSource) -> None:
    source = make_source(3)
    assert len(sentences.timing(document(source)["fronts"][0])) == 1
    source.trials[1].metrics["throughput/dense_ms"] = 6.0
    [_, uneven] = sentences.timing(document(source)["fronts"][0])
    assert "took 4 to 6 ms a row" in uneven


def test_demands_are_obeyed(make_source: MakeSource) -> None:
    source = make_source(8)
    source.tags["min_speedup"] = "3"
    [front] = document(source)["fronts"]
    assert front["min_speedup"] == 3
    for row in front["trials"]:
        assert row["meets_demands"] == (row["speedup"] >= 3)
        assert not row["on_front"] or row["meets_demands"]
    assert front["recommendation"].startswith("Best with at least 3x: ")
    source.tags["min_score"] = "2"
    [front] = document(source)["fronts"]
    assert front["recommendation"] == "There is no model with at least a score of 2 and 3x."
    assert front["recommended"] is None
    assert front["hypervolume"] == 0


def test_replicates_show_the_noise_of_seeds(make_source: MakeSource) -> None:
    source = make_source()
    for seed in range(3):
        source.add(sparsity=0.6, params={"seed": seed, "learning_rate_ratio": 1.0})
    source.add(sparsity=0.9)
    [front] = document(source)["fronts"]
    assert front["uncertainty"]["num_replicates"] == 3
    assert 0 < front["uncertainty"]["seed_noise"] < 0.1


def test_importance_needs_trials_and_finds_what_matters(make_source: MakeSource) -> None:
    few = document(make_source(9))["studies"][0]
    assert few["importance"] is None
    assert few["importance_note"] == "Importance needs 10 complete trials; there are 9."
    many = document(make_source(40))["studies"][0]
    assert next(iter(many["importance"]["speedup"])) == "cofi/target_sparsity"
    assert many["importance"]["speedup"]["cofi/target_sparsity"] > 0.9


def test_a_long_front_shows_the_insides_of_some(make_source: MakeSource) -> None:
    source = make_source(200)
    [study] = document(source)["studies"]
    assert len(study["curves"]) <= CHOSEN


def test_several_studies_share_a_front_where_they_are_comparable(make_source: MakeSource) -> None:
    source = make_source(3, "a", "b")
    for _ in range(2):
        source.add(study="b")
    made = document(source)
    [front] = made["fronts"]
    assert len(front["trials"]) == 5
    assert [study["name"] for study in made["studies"]] == ["a", "b"]
    assert [study["counts"] for study in made["studies"]] == [{"complete": 3}, {"complete": 2}]
    assert {row["path"].split("/")[1] for row in front["trials"]} == {"a", "b"}


def test_published_figures_stand_apart(make_source: MakeSource) -> None:
    made = document(make_source(2))
    assert [(row["model"], row["score"]) for row in made["published"]] == [
        ("princeton-nlp/CoFi-CoLA-s60", 0.604),
        ("princeton-nlp/CoFi-CoLA-s95", 0.389),
    ]
    assert "V100" in made["published_source"]["contract"]


def test_damaged_plans_and_params_do_no_harm(make_source: MakeSource) -> None:
    source = make_source(3)
    for number, run in enumerate(source.trials):
        source.files[run.run_id, "plan.json"] = [b"{", b"[]", b'{"layers": 3}'][number]
        run.params["learning_rate_ratio"] = ["nan", "inf", "<b>"][number]
    assert document(source)["studies"][0]["structures"] == {}


LINKS = (("", "0.6"), ("s-0000", "0.6 > 0.75"), ("s-0001", "0.6 > 0.75 > 0.85"))


def test_a_model_says_which_chain_it_came_from(make_source: MakeSource) -> None:
    source = make_source()
    for parent, chain in LINKS:
        source.add(tags={"cofi.parent": parent, "cofi.root": "s-0000", "cofi.chain": chain})
    source.add()
    [front] = document(source)["fronts"]
    said = {row["trial"]: (row["parent"], row["chain"]) for row in front["trials"]}
    assert said == {
        "s-0000": (None, "link 1 of s-0000: 0.6"),
        "s-0001": ("s-0000", "link 2 of s-0000: 0.6 > 0.75"),
        "s-0002": ("s-0001", "link 3 of s-0000: 0.6 > 0.75 > 0.85"),
        "s-0003": (None, None),
    }


def test_compute_is_added_up_in_the_order_of_ends_over_what_a_trial_holds(make_source: MakeSource) -> None:
    source = make_source()
    source.tags = {**source.tags, "device": "cuda", "held": "0.5"}
    for heard in ("300", "100", "200"):
        source.add(tags={"cofi.heard_ms": heard})
    source.add("pruned", tags={"cofi.heard_ms": "no number"})
    [study] = document(source)["studies"]
    assert study["processor"] == "GPU"
    course = study["course"]
    assert [point["trial"] for point in course] == ["s-0001", "s-0002", "s-0003", "s-0000"]
    assert [point["seconds"] for point in course] == [10.0, 20.0, 29.5, 39.5]
    assert course[-1]["compute_hours"] == pytest.approx(0.5 * 39.5 / 3600)
    volumes = [point["hypervolume"] for point in course]
    assert volumes == sorted(volumes)
