"""What a run says of a trial."""

from __future__ import annotations

from cofi_tune import fields
from cofi_tune.messages import INTERRUPTED, Asked, Outcome
from cofi_tune.records import Progress


def test_params_are_settings_proposals_and_logarithms() -> None:
    asked = Asked(
        "s-0000", {"rate": 0.01, "share": 0.5}, {"rate": 1.0, "method": "cofi"}, frozenset({"rate"})
    )
    assert fields.of_asked(asked) == {"rate": 0.01, "share": 0.5, "method": "cofi", "log10_rate": -2.0}


def test_curves_have_what_was_reported() -> None:
    report = Progress(
        3, 9, "prune", {"loss": 1.0, "cofi/layer": 0.5}, 1e-3, 2.0, 0.4, None, None, 512.5, 640.0
    )
    assert fields.of_progress(report) == {
        "loss": 1.0,
        "cofi/layer": 0.5,
        "learning_rate": 1e-3,
        "expected_sparsity": 0.4,
        "rss_mib": 512.5,
        "peak_rss_mib": 640.0,
        "train_seconds": 2.0,
    }


def test_ends() -> None:
    lost = fields.of_outcome(Outcome.failed("lost", "its process died"))
    assert lost == {"cofi.state": "fail", "cofi.reason": "lost", "cofi.message": "its process died"}
    assert fields.of_outcome(Outcome.failed(INTERRUPTED))["cofi.state"] == "interrupted"
    assert fields.of_outcome(Outcome("complete"))["cofi.reason"] == ""


def test_versions_name_the_software() -> None:
    named = {"version.torch", "version.ray", "version.optuna", "version.mlflow", "cofi.version"}
    assert named <= set(fields.versions())
