"""How methods look; that they can be told apart is tested with the figures."""

from tf_pruneinit.config import registry
from tf_pruneinit.reporting import series, styles
from tf_pruneinit.reporting.series import Series


def test_every_method_and_benchmark_has_a_name_and_a_look():
    for method in (*registry.METHODS, *registry.IN_TRAINING, *series.BENCHMARKS, series.DENSE):
        assert method in styles.METHODS
        assert method in series.LABELS
    assert all(row.label for row in (*registry.METHODS.values(), *registry.IN_TRAINING.values()))


def test_a_variant_keeps_its_methods_color():
    variant = styles.of(Series("snip", "iterations=100"))
    assert variant.color == styles.METHODS["snip"].color
    assert variant.symbol == "circle-open"


def test_after_training_has_its_methods_color():
    assert styles.of(Series("snip_after_training")).color == styles.METHODS["snip"].color
    assert styles.of(Series("something_new")) == styles.of(Series("something_newer"))
