"""Published results from a file."""

import dataclasses
import html
import pathlib

import pytest
from made_runs import of_every_name, run

from tf_pruneinit.errors import UsageError
from tf_pruneinit.reporting import figures, findings, interactive, page, published
from tf_pruneinit.reporting import tables as tabulation
from tf_pruneinit.reporting.series import Series, View, name_of

HEAD = ",".join(published.COLUMNS)
ROW = 'A paper,ResNet-20,CIFAR-10,ltr,init,73.79,90.03,0.15,3,"batch 512, AMP"'


@pytest.fixture
def write(tmp_path):
    def written(*rows, head=HEAD):
        path = tmp_path / "references.csv"
        path.write_text("\n".join([head, *rows]) + "\n")
        return str(path)

    return written


def test_reads_a_row(write):
    (one,) = published.read(write(ROW))
    assert (one.method, one.sparsity, one.accuracy, one.std, one.seeds) == (
        "lottery_ticket_rewinding", 0.738, pytest.approx(0.9003), pytest.approx(0.0015), 3,
    )  # fmt: skip
    assert one.label == "LTR [A paper; batch 512, AMP]"


def test_deviation_seeds_and_variant_may_lack(write):
    (one,) = published.read(write("A paper,ResNet-20,CIFAR-10,snip,,50,90,,,its own"))
    assert (one.std, one.seeds, one.variant) == (None, None, "")


@pytest.mark.parametrize(
    "row, message",
    [
        (ROW.replace("90.03", "good"), "accuracy_mean must be a number from 0 to 100; got 'good' in row 3"),
        (ROW.replace("90.03", "9003"), "got '9003' in row 3"),
        (ROW.replace("90.03", "nan"), "got 'nan' in row 3"),
        (ROW.replace("73.79", ""), "got none in row 3"),
        (ROW.replace("73.79", "100"), "below 100"),
        (ROW.replace("A paper", ""), "must say their source; got none in row 3"),
        ("A paper,ResNet-20", "row 3"),
        (ROW.replace(",3,", ",0,"), "seeds"),
        (ROW + ',"open', "row 2"),
    ],
)
def test_a_bad_row_is_named(write, row, message):
    with pytest.raises(UsageError, match=message):
        published.read(write(ROW, row))


def test_a_column_that_lacks_is_named(write):
    with pytest.raises(UsageError, match="lacks recipe"):
        published.read(write(head=HEAD.replace(",recipe", "")))


def test_no_file_is_a_mistake(tmp_path):
    with pytest.raises(UsageError, match="nowhere"):
        published.read(str(tmp_path / "nowhere"))
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="binary"):
        published.read(str(tmp_path / "binary"))


def test_belongs_to_a_network_and_dataset_whatever_they_are_written_like(write):
    rows = published.read(write(ROW, ROW.replace("ResNet-20", "VGG-16"), ROW.replace("CIFAR-10", "CIFAR-100")))
    view = View([run(0.9, dataset="cifar10", model="resnet20")])
    assert published.of_view(view, rows) == rows[:1]


@pytest.mark.parametrize("written, method", [("SNIP", "snip"), ("GraSP-abs", "grasp_abs"), ("LTR", "lottery_ticket_rewinding"),
    ("unpruned", "dense"), ("Magnitude_After", "magnitude_after_training"), ("iterSNIP", "iterSNIP")])  # fmt: skip
def test_a_method_is_known_by_its_name_here_however_it_is_written(write, written, method):
    (one,) = published.read(write(ROW.replace("ltr", written)))
    assert one.method == method


@pytest.mark.slow
def test_methods_of_every_name_and_of_none_are_shown(write):
    configs = of_every_name()
    # Of two sparsities, since what is pruned later to one only has no curve.
    prunes = [one.prune for one in configs]
    prunes += [dataclasses.replace(one, sparsity=0.36, rounds=min(2, one.rounds)) for one in prunes]
    own = [
        run(0.8, one.method, one.sparsity, prune_at=one.prune_at, rewind_to=one.rewind_to, rounds=one.rounds) for one in prunes
    ]
    names = [*(one.method for one in configs), "dense", "of_nobody", "of nobody $x^{$", "<b>bold", "_under"]
    rows = published.read(write(*(f'"A ${n % 30} paper",convnet,digits,{name},,48.8,70,,,' for n, name in enumerate(names))))
    view = View(own)
    drawn = figures.published(view, rows)
    drawn.canvas.draw()
    labels = {axes.get_title().split(", ")[0] for axes in drawn.axes}
    curves = {series.method for series in view.drawn}
    assert len(curves) > 45 and {name_of(method) for method in curves} <= labels
    table = tabulation.published(view, rows)
    assert [row[3].text for row in table.rows] == names
    shown = interactive.every(view, rows)["Accuracy against sparsity"]["data"]
    told = " ".join(trace["hovertemplate"] for trace in shown)
    assert all(f"published: {html.escape(one.label)}" in told for one in rows)
    tables = tabulation.every([view], [findings.find(view)], rows)
    assert "of nobody" in page.write([view], {view.slug: findings.find(view)}, tables, {view.slug: []}, [], rows)


def test_rows_of_networks_that_no_run_is_of_are_named(write):
    rows = published.read(write(ROW, ROW, ROW.replace("ResNet-20", "VGG-16")))
    view = View([run(0.9, dataset="cifar10", model="resnet20")])
    (gap,) = published.of_no_view([view], rows)
    assert str(gap) == "left out: published results (1 row, of what was not run: VGG-16 on CIFAR-10)"
    assert published.of_no_view([view], []) == []


@pytest.mark.slow
def test_the_package_has_published_results_with_their_sources():
    rows = published.read(published.OWN)
    assert len(rows) > 1000 and all(one.source and 0 <= one.accuracy <= 1 for one in rows)
    assert {("ResNet-20", "CIFAR-10"), ("VGG-16", "CIFAR-10")} <= {(one.network, one.dataset) for one in rows}


def test_densities_by_the_same_rule_lie_under_each_other():
    row = dataclasses.replace(published.read(published.OWN)[0], method="random", variant="ERK densities")
    plain, erk = Series("random"), Series("random", "scope=erk")
    assert row.exactly(erk) and not row.is_of(plain)
    assert dataclasses.replace(row, variant="").exactly(plain) and not dataclasses.replace(row, variant="").is_of(erk)
    assert row.is_of(Series("random", "scope=erk, rounds=2")) and not row.exactly(Series("random", "scope=erk, rounds=2"))


def test_random_pruning_by_layer_is_not_below_snip_and_above_synflow_as_the_page_says():
    rows = [one for one in published.read(published.OWN) if (one.network, one.dataset) == ("ResNet-20", "CIFAR-10")]
    rows = [one for one in rows if one.source.startswith("mge-snn") and one.sparsity >= 0.9]
    found = {(one.method, one.variant, one.sparsity): 100 * one.accuracy for one in rows}
    page = " ".join((pathlib.Path(__file__).parents[2] / "docs/report.md").read_text().split())
    erk, snip, synflow = (
        [found[name, variant, s] for s in (0.9, 0.95, 0.98)]
        for name, variant in (("random", "ERK densities"), ("snip", "init"), ("synflow", "init"))
    )
    assert all(one >= other for one, other in zip(erk, snip, strict=True))
    assert all(one > other for one, other in zip(erk, synflow, strict=True))
    assert f"{erk[0]:.2f} and {snip[0]:.2f} % at 90 % sparsity, {erk[1]:.2f} and {snip[1]:.2f} at 95" in page
    assert f"{erk[2]:.2f} and {snip[2]:.2f} at 98" in page
    assert f"({', '.join(f'{one:.2f}' for one in synflow)})" in page
