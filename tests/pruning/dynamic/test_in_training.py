"""Masks that change while a network is trained: exact counts, gradients of what is removed, resuming, replicas, runs."""

import dataclasses
import itertools
import json

import numpy as np
import pytest
import tensorflow as tf
from sweeping import launch_here

import tf_pruneinit
from tf_pruneinit import main, report, seeds, sweep
from tf_pruneinit.config import registry
from tf_pruneinit.config.execution import Interval
from tf_pruneinit.config.experiment import Config, Prune, Train
from tf_pruneinit.datasets import dataset
from tf_pruneinit.datasets.split import Split
from tf_pruneinit.models import build
from tf_pruneinit.pruning import masks as masking
from tf_pruneinit.pruning.dynamic import schedule as dynamics
from tf_pruneinit.reporting import collect, figure_data
from tf_pruneinit.reporting import series as curves
from tf_pruneinit.sweeps.launchers import local
from tf_pruneinit.training import loop
from tf_pruneinit.training import step as engine

PLAN = Train(None, 40, batch_size=64, learning_rate=0.1, momentum=0.9, weight_decay=1e-3)
EXCHANGING = [name for name, row in registry.IN_TRAINING.items() if not row.begins_dense]

every_method = pytest.mark.parametrize("method", registry.IN_TRAINING)


@pytest.fixture(scope="module")
def digits():
    """As many images as eight full batches have: all steps are traced once."""
    found = dataset.load("digits")
    return dataclasses.replace(found, train=Split(found.train.images[:512], found.train.labels[:512]))


def begun(digits, method, sparsity=0.9, name="convnet"):
    row = registry.IN_TRAINING[method]
    model = build.build(name, digits.input_shape, digits.classes, seeds.derive(0, "weights"))
    return tf_pruneinit.prune(model, row.initial, 0.0 if row.begins_dense else sparsity, scope=row.scope, seed=0)


def updates(digits, method, plan=PLAN, sparsity=0.9, **options):
    options = {"update_every": 5} | options
    steps_an_epoch = -(-len(digits.train) // plan.batch_size)
    steps = loop.total_steps(plan, len(digits.train))
    return dynamics.updates(Config(prune=Prune(method, sparsity, **options), train=plan), steps, steps_an_epoch)


def train(digits, model, method, plan=PLAN, **options):
    found = options.pop("updates", None) or updates(digits, method, plan)
    return list(loop.Training(model, digits, plan, seed=0, updates=found, **options).records())


def values(model):
    return {variable.path: variable.numpy() for variable in model.variables}


def require_same(one, two):
    assert one.keys() == two.keys()
    for path, value in one.items():
        np.testing.assert_array_equal(two[path], value, err_msg=path)


class Watched:
    """Updates that keep what they were given and gave."""

    def __init__(self, updates):
        self._updates = updates
        self.seen = []

    def __getattr__(self, name):
        return getattr(self._updates, name)

    def masks(self, step, kernels, masks, gradients):
        new = self._updates.masks(step, kernels, masks, gradients)
        self.seen.append((step, kernels, masks, new))
        return new


@pytest.fixture(scope="module", params=registry.IN_TRAINING)
def watched(digits, request):
    """A method, what its changes were given and gave, and the trained model."""
    seen, model = Watched(updates(digits, request.param)), begun(digits, request.param)
    train(digits, model, request.param, updates=seen)
    return request.param, seen.seen, model


def test_counts_are_exact_at_every_change(watched):
    method, seen, model = watched
    total = sum(mask.size for mask in masking.masks(model).values())
    counts = [sum(int(mask.sum()) for mask in new.values()) for *_, new in seen]
    steps = [step for step, *_ in seen]
    if method in EXCHANGING:
        assert steps == [5, 10, 15, 20, 25]
        assert counts == [round(0.1 * total)] * 5
        for _, _, old, new in seen:
            assert [old[path].sum() for path in old] == [new[path].sum() for path in new]
        assert all((old[path] != new[path]).any() for _, _, old, new in seen for path in ("conv2/kernel", "conv3/kernel"))
    else:
        assert steps == [5, 10, 15, 20, 25, 30]
        assert counts == [round((1 - 0.9 * (1 - (1 - step / 30) ** 3)) * total) for step in steps]
        assert all((new[path] <= old[path]).all() for _, _, old, new in seen for path in old)
    require_same(seen[-1][-1], masking.masks(model))
    kernels = masking.kernels(model)
    assert all(
        (kernel.value[mask == 0] == 0).all()
        for kernel, mask in zip(kernels.values(), masking.masks(model).values(), strict=True)
    )


def test_what_comes_back_begins_at_zero_and_is_trained(watched):
    method, seen, _ = watched
    grown = moved = 0
    for (_, _, old, new), (_, after, _, _) in itertools.pairwise(seen):
        for path in new:
            came = (new[path] == 1) & (old[path] == 0)
            grown += came.sum()
            moved += np.count_nonzero(after[path][came])
    if method in EXCHANGING:
        assert moved > 0.9 * grown > 50
    else:
        assert grown == 0


def test_gradients_are_of_all_weights_of_the_pruned_network(digits):
    """Against a network whose removed weights are 0 and whose masks are ones."""
    model = begun(digits, "rigl", name="lenet_300_100")
    taken = engine.Engine(model, digits, PLAN)
    shares = next(taken.epoch(0, 0))
    found = taken.dense_gradients(shares, 3)
    places, _ = next(engine.batches(digits, PLAN.batch_size, 0, 0))
    images, labels = digits.preprocessing(digits.train.images[places[3]]), digits.train.labels[places[3]]
    whole = build.build("lenet_300_100", digits.input_shape, digits.classes, seeds.derive(0, "weights"))
    for path, kernel in masking.kernels(whole).items():
        kernel.variable.assign(masking.kernels(model)[path].value)
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, whole(images, training=True)))
    kernels = masking.kernels(whole)
    expected = tape.gradient(loss, [kernel.variable.value for kernel in kernels.values()])
    assert list(found) == list(kernels)
    for path, gradient in zip(found, expected, strict=True):
        np.testing.assert_allclose(found[path], gradient, rtol=1e-4, atol=1e-6)
        assert (found[path][masking.masks(model)[path] == 0] != 0).mean() > 0.3


@pytest.mark.slow
def test_looking_at_gradients_changes_nothing(digits):
    model = begun(digits, "rigl")
    taken = engine.Engine(model, digits, PLAN)
    before = values(model)
    taken.dense_gradients(next(taken.epoch(0, 0)), 0)
    require_same(before, values(model))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "name", "options"),
    [
        ("rigl", "lenet_300_100", {"devices": 2}),
        ("rigl", "lenet_300_100", {"jit": True}),
        ("set", "lenet_300_100", {}),
        ("gradual_magnitude", "lenet_300_100", {}),
    ],
)
def test_goes_on_from_any_checkpoint_to_the_same_bits_whatever_is_taken_at_a_time(digits, method, name, options):
    """A step at a time, with a checkpoint after each; then as many as may be."""
    kept = {}
    saving = loop.Saving(checkpoint=lambda step, *what: kept.update({step: what}), every=Interval(steps=1))
    model = begun(digits, method, name=name)
    # Both trainings have one compiled step, which is what takes long.
    records = train(digits, model, method, saving=saving, reuse=True, **options)
    whole, model = values(model), begun(digits, method, name=name)
    again = loop.Training(model, digits, PLAN, seed=0, updates=updates(digits, method), reuse=True, **options)
    for step in (24, 3):
        assert again.restore(*kept[step])
        rest = list(again.records())
        require_same(whole, values(model))
        assert [one.remaining for one in rest] == [one.remaining for one in records][-len(rest) :]


def test_two_replicas_change_masks_as_one_does(digits):
    """Without batch normalisation: gradients of the whole batch are those of one replica, but for rounding."""
    found, plan = [], Train(None, 12, batch_size=64)
    for devices in (1, 2):
        model = begun(digits, "rigl", name="lenet_300_100")
        train(digits, model, "rigl", plan, devices=devices)
        found.append(masking.masks(model))
    differing = sum(int((found[0][path] != found[1][path]).sum()) for path in found[0])
    assert differing < 0.001 * sum(mask.size for mask in found[0].values())
    assert [mask.sum() for mask in found[0].values()] == [mask.sum() for mask in found[1].values()]


@pytest.mark.slow
@pytest.mark.parametrize(("method", "precision"), [("rigl", "mixed_float16"), ("gradual_magnitude", "mixed_bfloat16")])
def test_trains_in_half_precision(digits, method, precision):
    row = registry.IN_TRAINING[method]
    model = build.build("lenet_300_100", digits.input_shape, digits.classes, 0, precision=precision)
    model = tf_pruneinit.prune(model, row.initial, 0.0 if row.begins_dense else 0.9, scope=row.scope, seed=0)
    plan = Train(None, 40, batch_size=64, precision=precision)
    (*_, last) = train(digits, model, method, plan, updates=updates(digits, method, plan))
    total = sum(mask.size for mask in masking.masks(model).values())
    assert last.remaining == round(0.1 * total)
    assert last.accuracy > 0.3


COMMON = ("--dataset=digits", "--epochs=3", "--sparsity=0.9")
FLAGS = ("--update_every=10", "--snapshot_steps=12")


def call(workdir, *flags):
    return main.main(["main", f"--workdir={workdir}", *COMMON, *flags])


def run_of(workdir, method):
    (path,) = workdir.glob(f"*-{method}-*")
    return path


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """Runs by every method, and one whose masks do not change, of one sweep."""
    path = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local, "launch", launch_here)
        methods = f"--grid=method={','.join(registry.IN_TRAINING)},random"
        assert sweep.main(["sweep", f"--workdir={path}", *COMMON, *FLAGS, methods]) == 0
    return path


@pytest.mark.slow
@every_method
def test_run_records_what_remains_and_keeps_the_masks_of_the_end(workdir, method, capfd):
    path = run_of(workdir, method)
    result = json.loads((path / "result.json").read_text())
    total = result["total"]
    assert result["remaining"] == round(0.1 * total)
    counts = [json.loads(line)["remaining"] for line in (path / "records.jsonl").read_text().splitlines()]
    schedule = [round((1 - 0.9 * (1 - (1 - min(step, 51) / 51) ** 3)) * total) for step in (20, 40, 51)]
    assert counts == ([round(0.1 * total)] * 3 if method in EXCHANGING else schedule)
    with np.load(path / "masks.npz") as masks:
        kept = dict(masks)
    exported = tf.saved_model.load(str(path / "saved_model")).masks
    for name, mask in kept.items():
        np.testing.assert_array_equal(exported[name].numpy(), mask)
    assert sum(int(mask.sum()) for mask in kept.values()) == result["remaining"]
    # Weights of a step that were not kept are found again, to the same bits, with the masks of the beginning.
    kept_weights = dict(np.load(path / "snapshots" / "step-12.npz"))
    (path / "snapshots" / "step-12.npz").unlink()
    assert call(workdir, f"--method={method}", *FLAGS) == 0
    require_same(kept_weights, dict(np.load(path / "snapshots" / "step-12.npz")))
    capfd.readouterr()
    assert call(workdir, f"--method={method}", "--update_every=10", "--compact=true", "--overwrite") == 2
    assert "compact=true needs masks that do not change" in capfd.readouterr().err
    assert (path / "result.json").exists()


@pytest.mark.slow
def test_sweeps_make_them_beside_others_and_reports_draw_their_course(workdir, tmp_path):
    view = curves.View(collect.read([str(workdir)]).runs)
    labels = {"RigL, update_every=10", "gradual magnitude, update_every=10", "random"}
    assert {series.label for series in view.curves} >= labels
    assert [series.label for series in view.before] == ["random"]
    assert {series.label for series in view.drawn} >= labels
    one = next(run for run in view.runs if run.method == "gradual_magnitude")
    remaining = figure_data.Remaining(curves.Series(one.method), "", 0.9, one, 1)
    times, kept = figure_data.remaining_by_step(remaining, one.steps)
    records = [json.loads(line) for line in (run_of(workdir, "gradual_magnitude") / "records.jsonl").read_text().splitlines()]
    total = sum(total for _, total, _ in one.layers)
    assert times == [0, *(record["step"] for record in records), one.steps]
    assert kept == pytest.approx([100, *(100 * record["remaining"] / total for record in records), 10], abs=0.01)
    assert report.main(["report", f"--workdir={workdir}", f"--out={tmp_path}/r"]) == 0
