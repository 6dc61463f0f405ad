import random

import pytest
from made_runs import write

from tf_pruneinit import sweep
from tf_pruneinit.config.grid import PAPER
from tf_pruneinit.errors import UsageError
from tf_pruneinit.reporting import collect, findings
from tf_pruneinit.reporting.series import View
from tf_pruneinit.sweeps.options import configurations


def accuracy(config, chance):
    """As the paper has it: magnitude after training loses nothing up to 90 %, everything else loses, random pruning most."""
    prune = config.prune
    if prune is None:
        return 0.95
    lost = {"random": 0.3, "grasp": 0.2}.get(prune.method, 0.1) * prune.sparsity
    if prune.prune_at == "end":
        lost = 0.0 if prune.sparsity < 0.9 else 0.05
    if prune.ablation == "invert" or (prune.prune_at == "end" and prune.ablation != "none"):
        lost += 0.1
    return 0.95 - lost + chance.uniform(-0.001, 0.001)


@pytest.mark.parametrize("name, grids", [("quick", []), ("paper", ["sparsity=0.2,0.738,0.945,0.982"])])
def test_the_runs_of_a_preset_earn_every_finding(tmp_path, name, grids):
    chance = random.Random(0)
    configs = set(configurations(grids, [], {"dataset": "digits"}, name))
    for config in configs:
        write(tmp_path, config, accuracy(config, chance), empty_neurons=config.method == "synflow")
    view = View(collect.read([str(tmp_path)]).runs)
    unknown = [one.sentence for one in findings.find(view) if one.verdict == findings.UNKNOWN]
    assert not unknown
    assert len(view.runs) == len(configs) and not view.left_out


class TestGrid:
    def test_paper_has_its_sparsities_and_the_rewinding_of_the_network(self):
        configs = configurations([], [], {"dataset": "cifar10", "model": "vgg16"}, "paper")
        assert len({config.sparsity for config in configs}) == 1 + len(PAPER)
        assert {config.prune.rewind_to for config in configs if config.prune} == {None, "2000"}
        assert {config.train.epochs for config in configs} == {160}
        assert {"1ep", "4ep", "16ep", "40ep", "80ep", "end", "0"} == {c.prune.prune_at for c in configs if c.prune}

    def test_flags_and_grids_replace_values_of_the_preset(self):
        base = {"epochs": 10, "sparsity": 0.5}
        configs = configurations(["seed=7"], ["method=lamp"], base, "quick")
        assert {config.seed for config in configs} == {7}
        assert {config.train.epochs for config in configs} == {10}
        assert {config.prune.sparsity for config in configs if config.prune} == {0.5, 0.945}
        assert sum(config.method == "lamp" for config in configs) == 1

    def test_a_length_in_steps_is_refused(self):
        with pytest.raises(UsageError, match="a preset prunes at epochs: give epochs, not train_steps"):
            configurations([], [], {"train_steps": 5}, "quick")


def test_the_time_is_told_before_the_sweep_begins(tmp_path, capsys):
    assert sweep.main(["sweep", "--preset=quick", f"--workdir={tmp_path}", "--dry_run"]) == 0
    assert "on two cores" in capsys.readouterr().out


def test_an_unknown_preset_is_refused(capsys):
    assert sweep.main(["sweep", "--preset=quik"]) == 2
    assert "error: preset must be one of quick, paper; got 'quik' (did you mean quick?)" in capsys.readouterr().err


def test_help_names_presets(capsys):
    assert sweep.main(["sweep", "--help"]) == 0
    assert "quick (LeNet-300-100 on digits" in " ".join(capsys.readouterr().out.split())
