import pytest
from made_runs import run

from tf_pruneinit.reporting import terminal_table
from tf_pruneinit.reporting.series import View


@pytest.fixture
def runs():
    found = [run(0.95 + seed / 100, "dense", seed=seed) for seed in range(2)]
    for sparsity in (0.5, 0.9, 0.98):
        found += [run(0.8 + seed / 10, "snip", sparsity, seed) for seed in range(2)]
    found += [run(0.7, "snip", 0.9, seed, ablation="shuffle") for seed in range(2)]
    found += [run(0.75, "snip", 0.9, seed, prune_at="10") for seed in range(2)]
    return found


def test_a_row_a_method_and_a_column_a_sparsity(runs):
    assert terminal_table.lines(View(runs)) == [
        "convnet on digits: test accuracy in percent, 2 seeds",
        "unpruned: 95.50 ± 0.71",
        "",
        "                         50 %          90 %          98 %",
        "SNIP             85.00 ± 7.07  85.00 ± 7.07  85.00 ± 7.07",
        "SNIP, shuffle                  70.00 ± 0.00",
        "SNIP at step 10                75.00 ± 0.00",
    ]


def test_columns_that_do_not_fit_stand_below(runs):
    lines = terminal_table.lines(View(runs), width=55)
    assert max(map(len, lines)) <= 55
    heads = [line.split() for line in lines if "%" in line]
    assert heads == [["50", "%", "90", "%"], ["98", "%"]]
    # A method without a value in a table has no row there.
    assert [line.split()[0] for line in lines[-2:]] == ["98", "SNIP"]


def test_counts_of_seeds_that_differ_stand_behind_values(runs):
    lines = terminal_table.lines(View([*runs, run(0.9, "snip", 0.5, 2)]))
    assert lines[0].endswith("in percent")
    assert "unpruned: 95.50 ± 0.71 (2)" in lines
    assert any("86.67 ± 5.77 (3)" in line and "85.00 ± 7.07 (2)" in line for line in lines)


def test_one_seed_has_no_deviation_and_the_note_of_the_data_is_said():
    lines = terminal_table.lines(View([run(0.9, "snip", 0.5, note="a JPEG copy")]))
    assert lines[-2:] == ["SNIP  90.00", "note: a JPEG copy"]
