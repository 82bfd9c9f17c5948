"""Outcomes of runs and studies that were never made."""

from kamerton.smart_tuner.history import Descriptors, RunOutcome, StudyOutcome


def descriptors(**changed):
    values = {
        "hours": 2.0, "speakers": 1, "language": "en", "quality_score": 0.8,
        "sample_rate_hz": 22050, "added_complexity": 0.0,
    }  # fmt: skip
    return Descriptors(**(values | changed))


def run_outcome(name="r1", *, near_best_epochs=1000, **changed):
    """A run of 2000 epochs of 10 steps, as the rule has it."""
    values = {
        "run_id": name, "dataset_sha256": f"data of {name}", "descriptors": descriptors(),
        "rule_epochs": 2000, "recommended_epochs": 2000, "planned_epochs": 2000.0,
        "steps_per_epoch": 10, "planned_steps": 20000, "steps": 20000, "best_step": 20000,
        "near_best_step": near_best_epochs * 10, "quality": 0.5,
        "curve": ((1000, 2.0), (20000, 0.5)), "finished": f"2026-01-01T00:00:00+00:00 {name}",
    }  # fmt: skip
    return RunOutcome(**(values | changed))


def study_outcome(name="s1", **changed):
    values = {
        "study_id": name, "dataset_sha256": f"data of {name}", "descriptors": descriptors(),
        "space_names": ("train.learning_rate", "train.batch_size"),
        "best": ({"train.learning_rate": 1e-3, "train.batch_size": 16},),
        "finished": f"2026-01-01T00:00:00+00:00 {name}",
    }  # fmt: skip
    return StudyOutcome(**(values | changed))
