"""How long jobs take is estimated from complete runs of the same network on the same data."""

import pytest

from tf_pruneinit.config.experiment import Config, Train
from tf_pruneinit.sweeps import duration_estimate
from tf_pruneinit.sweeps.duration_estimate import DurationEstimate
from tf_pruneinit.sweeps.plan import Job

TRAIN = Train(None, 100)
# 100 steps in 50 seconds, and 3 seconds of other work.
RESULT = {"steps": 100, "epochs": 4.0, "seconds": {"data": 1.0, "train": 50.0, "export": 2.0, "parents": 1000.0}}


def test_is_of_runs_of_the_same_network_and_data():
    job = Job(Config(train=TRAIN))
    assert DurationEstimate([]).seconds(job) is None
    estimate = DurationEstimate([(job.config, RESULT)])
    assert estimate.seconds(job) == 53.0
    assert estimate.seconds(job, step=40) == 33.0
    assert estimate.seconds(Job(Config(model="convnet", train=TRAIN))) is None
    assert estimate.seconds(Job(Config(train=Train(None, 100, batch_size=64)))) is None


def test_knows_epochs_and_how_far_a_parent_is_trained():
    estimate = DurationEstimate([(Config(train=TRAIN), RESULT)])
    assert estimate.seconds(Job(Config(train=Train(8)))) == 103.0
    assert estimate.seconds(Job(Config(train=Train(8)), ("10", "2ep"), False)) == 28.0


def test_a_median_is_computed_once_for_all_jobs_that_are_alike(monkeypatch):
    medians = []
    median = duration_estimate.statistics.median
    monkeypatch.setattr(duration_estimate.statistics, "median", lambda values: medians.append(1) or median(values))
    estimate = DurationEstimate([(Config(seed=seed, train=TRAIN), RESULT) for seed in range(3)])
    for seed in range(20):
        assert estimate.seconds(Job(Config(seed=seed, train=TRAIN))) == 53.0
    assert len(medians) == 2


class TestTypicalSeconds:
    def test_grow_with_the_epochs_of_all_runs(self):
        short, long = (Config(dataset="mnist", model="lenet_300_100", train=Train(epochs=epochs)) for epochs in (20, 40))
        one, other = (duration_estimate.typical_seconds([config]) for config in (short, long))
        assert 10 < one < other < 100
        assert duration_estimate.typical_seconds([short, long]) == one + other

    @pytest.mark.parametrize(
        "changed",
        [{"model": "lenet5"}, {"dataset": "digits", "model": "resnet20"}, {"train": Train(epochs=None, steps=5)}],
        ids=str,
    )
    def test_are_not_known_of_what_was_not_measured(self, changed):
        config = Config(**{"dataset": "mnist", "model": "lenet_300_100"} | changed)
        assert duration_estimate.typical_seconds([config]) is None
