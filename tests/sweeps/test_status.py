"""What a sweep says of its jobs before, while and after it runs."""

import json
import re

import made_runs
import pytest

from tf_pruneinit.experiments import run_directory
from tf_pruneinit.pruning import summary
from tf_pruneinit.sweeps import plan as plans
from tf_pruneinit.sweeps import status
from tf_pruneinit.sweeps.options import configurations


@pytest.fixture
def workdir(tmp_path):
    """Of four runs two are complete, one has failed and one is damaged; each takes 53 seconds."""
    for seed in range(2):
        path = made_runs.write(tmp_path, made_runs.config(seed=seed)) / run_directory.RESULT
        result = json.loads(path.read_text()) | {"seconds": {"train": 50.0, "data": 3.0}, "dead": seed == 1}
        path.write_text(json.dumps(result))
    run_directory.record_failure(str(tmp_path), made_runs.config(seed=2), "it diverged", kind="diverged")
    (made_runs.write(tmp_path, made_runs.config(seed=3)) / run_directory.RESULT).write_text("{")
    return str(tmp_path)


@pytest.fixture
def plan():
    return plans.plan([*(made_runs.config(seed=seed) for seed in range(4)), made_runs.config(seed=4, prune_at="10")])


def test_forecast_counts_jobs_and_names_them_in_order(workdir, plan):
    found = json.loads(status.forecast(plan, workdir, as_json=True))
    assert found == {
        "runs": 5,
        "parents": 1,
        "complete": 2,
        "remaining": 3,
        "remaining_parents": 1,
        "failed": 2,
        "estimated_seconds": pytest.approx(3 * 53 + 8),
    }
    lines = status.forecast(plan, workdir, as_json=False).splitlines()
    assert lines[:5] == [
        "runs       5",
        "complete   2",
        "remaining  3  (2 failed)",
        "parents    1  (runs that others start from; 1 remaining)",
        "time       2 min 47 s on one worker",
    ]
    assert lines[6] == "in this order:"
    assert [line.split()[0] for line in lines[7:]] == ["failed", "failed", "waiting", "waiting"]
    assert lines[9].endswith("(saves weights at 10, no further)")
    assert "time       1 min 24 s on 2 workers" in status.forecast(plan, workdir, as_json=False, workers=2)
    assert "time       42 s on 4 workers" in status.forecast(plan, workdir, as_json=False, workers=9)


def test_status_counts_states_and_says_what_failed_and_is_dead(workdir, plan):
    found = json.loads(status.status(plan, workdir, as_json=True))
    assert [found[name] for name in ("complete", "running", "failed", "begun", "waiting", "dead")] == [2, 0, 2, 0, 2, 1]
    assert set(found["runs"]) == set(plan.jobs)
    shown = status.status(plan, workdir, as_json=False)
    counts = ["complete  2", "running   0", "failed    2", "begun     0", "waiting   2", "left      2 min 47 s on one worker"]
    assert shown.splitlines()[:6] == counts
    assert f"dead: 1 ({summary.DEAD})\n  dead: {made_runs.config(seed=1).address}\n" in shown
    assert f"failed: {made_runs.config(seed=2).address}: it diverged" in shown
    assert "result.json is damaged: it is not JSON" in shown


def test_nothing_is_estimated_before_a_run_is_complete(tmp_path, plan):
    assert json.loads(status.forecast(plan, str(tmp_path), as_json=True))["estimated_seconds"] is None
    # Of other machines a pace of this network is known.
    assert re.search(r"time +about \d+ s on two cores", status.forecast(plan, str(tmp_path), as_json=False))
    unknown = plans.plan(configurations(["method=snip"], (), {"dataset": "mnist", "model": "lenet5"}))
    assert "time       not known: no run like them is complete" in status.forecast(unknown, str(tmp_path), as_json=False)
