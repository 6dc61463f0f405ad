"""Tables for people and for programs."""

import csv
import dataclasses
import io

from made_runs import run
from test_findings import ablated, later, study

from tf_pruneinit.reporting import findings
from tf_pruneinit.reporting import tables as tabulation
from tf_pruneinit.reporting.published import Reference
from tf_pruneinit.reporting.series import View


def view(**options):
    return View(study() + ablated(0.0, -0.05, None) + later([0.8, 0.82, 0.81, 0.85]), **options)


def rows(table):
    return list(csv.DictReader(io.StringIO(tabulation.as_csv(table))))


def test_accuracy_has_a_row_a_sparsity_and_the_best_before_training_in_bold():
    table = tabulation.accuracy(View(study()))
    assert [row[0].text for row in table.rows] == ["50 %", "80 %", "90 %"]
    at = dict(zip(table.head, table.rows[2], strict=True))
    assert {name for name, cell in at.items() if cell.bold} == {"SynFlow"}
    assert at["magnitude after training"].text.startswith("80.00 ± 0.10 (3)")
    assert at["range"].text == "extreme"
    assert "Highest matching sparsity: 80 %" in table.caption


def test_csv_has_plain_numbers_and_the_sign_against_random():
    found = rows(tabulation.accuracy(View(study())))
    snip = next(row for row in found if row["method"] == "snip" and row["sparsity"] == "0.8")
    assert float(snip["accuracy_mean"]) == 86
    assert float(snip["accuracy_std"]) == 0.1
    assert float(snip["difference_from_random"]) == 16
    assert 15 < float(snip["low_from_random"]) < 16 < float(snip["high_from_random"]) < 17
    assert snip["sign_from_random"] == "+"
    assert (snip["seeds"], snip["pairs_with_random"], snip["pruned_at"]) == ("3", "3", "0")
    late = next(row for row in found if row["method"] == "magnitude_after_training")
    assert late["pruned_at"] == "100"
    assert next(row for row in found if row["method"] == "dense")["accuracy_mean"] == "90"


def test_dead_runs_are_counted_and_named():
    runs = [dataclasses.replace(one, dead=(one.method, one.sparsity, one.seed) == ("snip", 0.9, 1)) for one in study()]
    table = tabulation.accuracy(View(runs))
    assert table.caption.endswith("1 dead run, whose masks leave no path from input to output: SNIP at 90 % (seed 1).")
    counts = {(row["method"], row["sparsity"]): row["dead"] for row in rows(table)}
    assert (counts["snip", "0.9"], counts["snip", "0.8"]) == ("1", "0")


def test_of_results_that_do_not_say_so_it_is_not_known_how_many_are_dead():
    table = tabulation.accuracy(View(study()))
    assert {row["dead"] for row in rows(table)} == {""}
    assert "dead" not in table.caption


def test_few_seeds_are_marked_and_have_no_sign():
    table = tabulation.accuracy(View(study(seeds=2)))
    assert "‡" in dict(zip(table.head, table.rows[1], strict=True))["SNIP"].text
    assert {row["sign_from_random"] for row in rows(table)} == {""} == {row["low_from_random"] for row in rows(table)}
    assert "‡ fewer than 3 seeds in common" in table.caption


def test_a_mark_is_a_difference_by_more_than_the_margin():
    accuracies = {"random": 0.7, "snip": 0.8, "synflow": 0.704}
    runs = [run(accuracy, method, 0.8, seed) for method, accuracy in accuracies.items() for seed in range(3)]
    runs += [run(0.6, "snip", 0.8, seed, ablation="shuffle") for seed in range(3)]
    assert [cell.text for cell in tabulation.accuracy(View(runs)).rows[0]][-2:] == ["80.00 ± 0.00 (3)*", "70.40 ± 0.00 (3)"]
    assert tabulation.accuracy(View(runs, margin=0.11)).rows[0][-2].text == "80.00 ± 0.00 (3)"
    (row,) = tabulation.ablations(View(runs)).rows
    assert row[-1].text == "60.00 ± 0.00 (3)†"


def test_marks_agree_with_the_signs_of_the_findings():
    of_view = View(study() + ablated(0.0, -0.05, -0.2))
    (found,) = (one for one in findings.find(of_view) if one.name == "F1")
    decided = {(row.name, sparsity): one.sign for row in found.rows for sparsity, one in row.signs.items()}
    table = rows(tabulation.accuracy(of_view))
    said = {(row["method"], float(row["sparsity"])): row["sign_from_random"] for row in table}
    assert decided and {key: said[key] for key in decided if said[key] != "?"} == {
        key: sign for key, sign in decided.items() if said[key] != "?"
    }


def test_ablations_stand_beside_what_they_are_of():
    table = tabulation.ablations(view())
    at = {row[0].text: row for row in table.rows if row[1].text == "80 %"}
    assert at["SNIP"][2].text.startswith("86.00 ± 0.10 (3)")
    assert rows(table)[0]["ablation"] == "shuffle"
    assert tabulation.ablations(View(study())) is None


def test_pruning_step_compares_with_step_zero():
    table = tabulation.pruning_step(View(later([0.8, 0.82, 0.81, 0.85])))
    assert [row[2].text for row in table.rows] == ["0", "10", "50", "100"]
    assert table.rows[3][4].text.startswith("+5.00 points")


def test_every_caption_with_an_accuracy_has_the_note_of_the_dataset():
    noted = View(
        [run(0.9, seed=seed, note="a JPEG copy") for seed in range(3)] + [run(0.8, ablation="invert", note="a JPEG copy")]
    )
    row = Reference("s", "convnet", "digits", "snip", "init", 0.9, 0.8, None, None, "r")
    tables = tabulation.every([noted], [findings.find(noted)], [row])[noted.slug]
    assert len(tables) == 4
    for table in tables:
        for written in tabulation.FORMATS.values():
            assert "a JPEG copy" in written(table) or written is tabulation.as_csv
    assert rows(tabulation.accuracy(noted))[0]["dataset_note"] == "a JPEG copy"


def test_published_results_have_source_and_recipe_and_ones_own_beside_them():
    row = Reference("A paper", "convnet", "digits", "snip", "init", 0.8, 0.7, 0.01, 5, "its own")
    table = tabulation.published(View(study()), [row])
    assert [cell.text for cell in table.rows[0]][-2:] == ["70.00 ± 1.00 (5)", "86.00 ± 0.10"]
    assert [cell.text for cell in table.rows[0]][:2] == ["A", "A paper"]


def test_markdown_and_latex_escape_what_they_would_read():
    table = tabulation.Table("t_1", "50 % & *_", ("a|b",), ((tabulation.Cell("x_1*", True),),), ({"a": 1.0},))
    assert tabulation.as_markdown(table) == "| a\\|b |\n| --- |\n| **x_1\\*** |\n\n50 % & \\*_\n"
    latex = tabulation.as_latex(table)
    assert "\\caption{50 \\% \\& *\\_}" in latex
    assert "\\textbf{x\\_1*}" in latex
    assert latex.count("{") == latex.count("}")


def test_networks_say_what_was_run():
    table = tabulation.networks([View(study())])
    assert dict(zip(table.head, table.rows[0], strict=True))["SNIP"].text == "3 x 3"


def test_a_survey_says_what_each_source_compares_and_leaves_out_ones_own_runs():
    row = Reference("A paper", "ResNet-20", "CIFAR-10", "snip", "init", 0.8, 0.7, 0.01, 5, "its own")
    others = [dataclasses.replace(row, method="grasp", sparsity=0.9, seeds=3), dataclasses.replace(row, source="Another")]
    table = tabulation.survey([row, *others])
    assert rows(table)[0] == {
        "source": "A paper", "dataset": "CIFAR-10", "networks": "ResNet-20", "methods": "SNIP, GraSP", "sparsities": "2",
        "seeds": "3-5", "results": "2",
    }  # fmt: skip
    assert len(table.rows) == 2
    assert tabulation.survey([]) is None
