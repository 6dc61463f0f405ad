"""What directories hold: nothing that is in one stops a report, and nothing is dropped without a word."""

import json
import shutil

import pytest
from made_runs import config, write

from tf_pruneinit import errors
from tf_pruneinit.config.execution import Execution
from tf_pruneinit.config.experiment import Config, Prune
from tf_pruneinit.errors import UsageError
from tf_pruneinit.experiments import run_directory
from tf_pruneinit.reporting import collect
from tf_pruneinit.sweeps import manifest
from tf_pruneinit.sweeps import plan as plans


def kinds(found):
    return [gap.kind for gap in found.gaps]


def test_reads_a_run(tmp_path):
    path = write(tmp_path, config("magnitude", 0.8, 3, prune_at="end", rewind_to="20"), 0.75, "a note")
    (run,) = collect.read([str(tmp_path)]).runs
    assert (run.method, run.variant, run.ablation) == ("lottery_ticket_rewinding", "rewind_to=20", "none")
    assert (run.sparsity, run.seed, run.accuracy, run.note) == (0.8, 3, 0.75, "a note")
    assert (run.pruned_at, run.rewound_to, run.path) == (100, 20, str(path))
    assert run.after_training and not run.before_training
    assert run.density == pytest.approx(39 / 196)
    assert len(run.source.records()) == 10


def test_rounds_of_twenty_percent_are_on_the_papers_grid():
    assert collect.level(1 - 0.8**6) == collect.level(0.738)
    assert collect.level(1 - 0.8**17) == collect.level(0.977)
    assert collect.level(0.9986) != collect.level(0.999)


@pytest.mark.parametrize(
    "options, expected",
    [
        ({"method": "snip"}, ""),
        ({"method": "synflow"}, ""),
        ({"method": "synflow", "iterations": 1}, "iterations=1"),
        ({"method": "random", "scope": "layerwise"}, "scope=layerwise"),
        ({"method": "gradual_magnitude"}, ""),
        ({"method": "gradual_magnitude", "scope": "global"}, "scope=global"),
        ({"method": "snip", "exclude": ("fc", "conv")}, "exclude=fc+conv"),
        ({"method": "magnitude", "prune_at": "end", "rounds": 3, "sparsity": 0.488}, ""),
        ({"method": "magnitude", "prune_at": "end", "rounds": 2, "sparsity": 0.488}, "rounds=2"),
        ({"method": "snip", "ablation": "shuffle", "sparsity": 0.1}, ""),
    ],
)
def test_variant_names_what_is_not_the_methods_own(options, expected):
    assert collect.variant(Config(prune=Prune(**options))) == expected


def test_a_run_with_the_scores_of_an_earlier_version_is_a_gap(tmp_path):
    made = config("phew")
    (earlier,) = made.earlier_addresses
    write(tmp_path, made).rename(tmp_path / earlier)
    write(tmp_path, config("snip"))
    found = collect.read([str(tmp_path)])
    assert [run.method for run in found.runs] == ["snip"]
    (gap,) = found.gaps
    assert (gap.kind, gap.what) == ("another version", str(tmp_path / earlier))
    assert gap.reason == f"scores, images or the training step are others in this version, whose run is {made.address}"


def test_gaps_say_what_is_wrong(tmp_path):
    write(tmp_path, config(seed=0))
    (write(tmp_path, config(seed=1)) / "result.json").unlink()
    failed = write(tmp_path, config(seed=2))
    (failed / "result.json").unlink()
    (failed / "failure.json").write_text(json.dumps({"error": "memory ran out", "details": ""}))
    diverged = write(tmp_path, config(seed=3))
    (diverged / "result.json").unlink()
    run_directory.record_failure(str(tmp_path), config(seed=3), "no training here", kind=errors.kind(errors.DivergedError()))
    write(tmp_path, config(seed=4), float("nan"))
    (write(tmp_path, config(seed=5)) / "result.json").write_text('{"test_accur')
    (write(tmp_path, config(seed=6)) / "config.json").write_text("[1]")
    (write(tmp_path, config(seed=7)) / "config.json").unlink()
    (write(tmp_path, config(seed=8)) / "result.json").write_text("{}")
    (write(tmp_path, config(seed=9)) / "config.json").write_text(json.dumps({**config(seed=9).to_json(), "later": 1}))
    (tmp_path / "a-file").write_text("")
    found = collect.read([str(tmp_path)])
    assert [run.seed for run in found.runs] == [0]
    by_seed = {gap.what.split("/")[-1]: (gap.kind, gap.reason) for gap in found.gaps}
    assert by_seed[config(seed=1).address] == ("unfinished", "after step 100")
    assert by_seed[config(seed=2).address] == ("failed", "memory ran out")
    assert [by_seed[config(seed=seed).address][0] for seed in range(3, 10)] == [
        "diverged", "diverged", "damaged", "damaged", "damaged", "damaged", "another version",
    ]  # fmt: skip


def test_every_corrupted_byte_gives_a_run_or_a_gap(tmp_path):
    path = write(tmp_path, config())
    for name in ("config.json", "result.json"):
        whole = (path / name).read_bytes()
        for place in range(0, len(whole), 7):
            (path / name).write_bytes(whole[:place] + b"\x00" + whole[place + 1 :])
            found = collect.read([str(tmp_path)])
            assert len(found.runs) + len(found.gaps) == 1
        (path / name).write_bytes(whole)


def test_what_a_sweep_has_not_begun_is_named(tmp_path):
    write(tmp_path, config(seed=0))
    plan = plans.plan([config(seed=0), config(seed=1)])
    manifest.write(plan, Execution(workdir=str(tmp_path)), ["sweep"])
    (gap,) = collect.read([str(tmp_path)]).gaps
    assert (gap.kind, gap.what) == ("not begun", config(seed=1).address)


def test_a_dense_run_that_goes_as_far_as_it_is_needed_is_no_gap(tmp_path):
    late = config(prune_at="10")
    write(tmp_path, late)
    manifest.write(plans.plan([late]), Execution(workdir=str(tmp_path)), ["sweep"])
    (write(tmp_path, late.dense) / "result.json").unlink()
    assert kinds(collect.read([str(tmp_path)])) == []


def test_a_damaged_manifest_is_a_gap(tmp_path):
    write(tmp_path, config())
    (tmp_path / "sweeps" / "1").mkdir(parents=True)
    (tmp_path / "sweeps" / "1" / "manifest.jsonl").write_text("nonsense")
    found = collect.read([str(tmp_path)])
    assert kinds(found) == ["damaged"]
    assert len(found.runs) == 1


def test_a_run_in_two_directories_counts_once(tmp_path):
    path = write(tmp_path / "one", config(), 0.8)
    shutil.copytree(path, tmp_path / "two" / path.name)
    found = collect.read([str(tmp_path / "one"), str(tmp_path / "two")])
    assert [run.accuracy for run in found.runs] == [0.8]
    assert found.gaps == ()


def test_a_run_that_ended_in_two_ways_is_named(tmp_path):
    for folder, accuracy in (("one", 0.8), ("two", 0.7)):
        write(tmp_path / folder, config(), accuracy)
    found = collect.read([str(tmp_path / "one"), str(tmp_path / "two")])
    assert [run.accuracy for run in found.runs] == [0.8]
    assert kinds(found) == ["found twice"]


@pytest.mark.parametrize("order", [("before", "after"), ("after", "before")])
@pytest.mark.parametrize("failed", [False, True])
def test_a_run_that_is_complete_elsewhere_is_not_missing(tmp_path, order, failed):
    write(tmp_path / "after", config(), 0.8)
    path = write(tmp_path / "before", config())
    (path / "result.json").unlink()
    if failed:
        (path / "failure.json").write_text(json.dumps({"error": "memory ran out", "details": ""}))
    found = collect.read([str(tmp_path / folder) for folder in order])
    assert [run.accuracy for run in found.runs] == [0.8]
    assert found.gaps == ()


def test_nothing_to_read_is_a_mistake(tmp_path):
    with pytest.raises(UsageError, match="holds none"):
        collect.read([str(tmp_path)])
    (tmp_path / "somebody's" / "pictures").mkdir(parents=True)
    with pytest.raises(UsageError, match="holds none"):
        collect.read([str(tmp_path)])
    with pytest.raises(UsageError, match="nowhere"):
        collect.read([str(tmp_path / "nowhere")])


@pytest.mark.parametrize(
    "failure, said",
    [
        ({"error": "scores must be finite; 3 of the 9 of fc/kernel are not"}, "scores must be finite"),
        ({"error": "the loss is not finite", "details": ""}, "the loss is not finite"),
        ({"kind": "usage", "error": "learning_rate must be a finite number"}, "learning_rate must be"),
        ({"kind": "killed", "error": "the branch diverged\nupstream"}, "the branch diverged upstream"),
        ({"kind": ["diverged"], "error": None}, "failure.json says nothing"),
        ({}, "failure.json says nothing"),
        ("it diverged", "it diverged"),
        ([], "failure.json says nothing"),
        (0, "failure.json says nothing"),
    ],
)
def test_a_failure_is_of_the_kind_that_was_recorded_whatever_its_text(tmp_path, failure, said):
    path = write(tmp_path, config())
    (path / "result.json").unlink()
    (path / "failure.json").write_text(json.dumps(failure))
    (gap,) = collect.read([str(tmp_path)]).gaps
    assert gap.kind == "failed" and gap.reason.startswith(said)


@pytest.mark.parametrize(
    "field, value",
    [("pruned_at", "x"), ("pruned_at", -1), ("rewound_to", 1.5), ("steps", 10**300), ("layers", [3]), ("test_accuracy", [])],
)
def test_a_result_with_what_no_result_has_is_damaged(tmp_path, field, value):
    path = write(tmp_path, config())
    held = json.loads((path / "result.json").read_text())
    (path / "result.json").write_text(json.dumps({**held, field: value}))
    (gap,) = collect.read([str(tmp_path)]).gaps
    assert gap.kind == "damaged" and gap.reason.startswith("result.json has a value that no result has")


def test_a_network_without_weights_to_prune_remains_whole(tmp_path):
    path = write(tmp_path, config())
    held = json.loads((path / "result.json").read_text())
    (path / "result.json").write_text(json.dumps({**held, "layers": []}))
    assert collect.read([str(tmp_path)]).runs[0].density == 1
