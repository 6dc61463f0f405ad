"""Masks and densities from outside: what is read, what they change, and what is refused."""

import contextlib
import dataclasses
import json

import numpy as np
import pytest
from light_runs import unexported

from tf_pruneinit import main
from tf_pruneinit.config import flags
from tf_pruneinit.config.experiment import Config, Prune
from tf_pruneinit.errors import UsageError
from tf_pruneinit.experiments import given_masks

SHAPES = {"fc1/kernel": (64, 300), "fc2/kernel": (300, 100), "fc3/kernel": (100, 10)}


def drawn(density=0.25, shapes=SHAPES):
    draw = np.random.default_rng(0)
    return {path: (draw.random(shape) < density).astype(np.uint8) for path, shape in shapes.items()}


@pytest.fixture
def file(tmp_path):
    np.savez(tmp_path / "masks.npz", **drawn())
    return str(tmp_path / "masks.npz")


def mistake(*arguments, capsys):
    """The one line that a command prints which a user has mistaken."""
    assert main.main(["main", "--train_steps=1", *arguments]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


class TestConfiguration:
    def test_sparsity_and_address_are_those_of_the_masks(self, file, tmp_path):
        config = Config(prune=Prune(masks=file))
        kept, total = sum(mask.sum() for mask in drawn().values()), 50_200
        assert config.sparsity == pytest.approx(1 - kept / total)
        assert config.method == config.prune.method == "given"
        assert Config.from_json(config.to_json()) == config
        np.savez(file, **drawn(0.26))
        assert Config(prune=Prune(masks=file)).address != config.address
        with pytest.raises(UsageError, match=r"masks and densities, must be what they were .*; got another one of .*masks.npz"):
            config.require_current_sources()
        (tmp_path / "masks.npz").unlink()  # A stored configuration needs no file.
        assert Config.from_json(config.to_json()).address == config.address

    def test_densities_of_a_method_are_no_others_than_its_own(self):
        assert Prune("snip", densities="snip") == Prune("snip")
        assert Prune("magnitude", densities="snip").reads_data
        assert Prune("magnitude", densities="grasp", temperature=3.0).temperature == 3.0
        assert Prune("magnitude", densities="snip", temperature=3.0).temperature == Prune.temperature
        assert Prune("synflow", densities="synflow", iterations=1).densities == "synflow"
        assert Config(prune=Prune("snip", densities="grasp")).address != Config(prune=Prune("snip")).address

    def test_densities_of_a_file_have_its_sparsity(self, file):
        prune = Prune("random", densities=file)
        assert prune.sparsity == Prune(masks=file).sparsity
        assert prune.source
        with pytest.raises(UsageError, match=r"^sparsity must be that of the densities, 0.75\d*, or be left out; got 0.5$"):
            flags.experiment({"densities": file, "sparsity": 0.5})

    @pytest.mark.parametrize(
        "options, message",
        [
            ({"masks": "FILE", "scope": "erk"}, "masks take no scope but global; got 'erk'"),
            ({"masks": "FILE", "iterations": 3}, "masks take no iterations but 1; got 3"),
            ({"masks": "FILE", "densities": "snip"}, "masks take no densities; got 'snip'"),
            (
                {"masks": "FILE", "ablation": "invert"},
                "masks that are given take the ablations none, .*; got 'invert'",
            ),
            ({"masks": "nowhere"}, r"masks must be an .npz file .*; got 'nowhere', which does not exist"),
            ({"masks_of": "nowhere"}, r"masks_of must be a run with masks.npz; got 'nowhere'"),
            ({"densities": "snp"}, r"the name of a method that scores weights, or an .npz file .*; got 'snp', which does not"),
            ({"densities": "snip", "target": "effective", "method": "magnitude"}, "densities take no target but nominal"),
            ({"densities": "snip", "method": "rigl"}, "rigl changes masks in training and takes no densities; got 'snip'"),
            ({"densities": "FILE", "rounds": 2, "prune_at": "end"}, "densities take no rounds but 1; got 2"),
            ({"densities": "grasp", "ablation": "stage_densities"}, "densities take no ablation=stage_densities"),
        ],
    )
    def test_what_does_not_go_with_them_is_refused(self, file, options, message):
        with pytest.raises(UsageError, match=message):
            Prune(**{name: file if value == "FILE" else value for name, value in options.items()})

    def test_masks_go_with_no_method_and_no_sparsity(self, file):
        for other in ({"method": "snip"}, {"sparsity": 0.5}):
            with pytest.raises(UsageError, match=f"^masks are taken as they are, and go with no {next(iter(other))}; got"):
                flags.experiment({"masks": file, **other})


class TestRead:
    def test_what_is_no_mask_is_refused(self, tmp_path):
        path = str(tmp_path / "some.npz")
        np.savez(path, a=np.array([0.0, 0.5]))
        with pytest.raises(UsageError, match=r"^masks must be arrays of 0 and 1; got a in .*some.npz', of float64"):
            given_masks.read(path)
        (tmp_path / "some.npz").write_text("text")
        with pytest.warns(UserWarning, match="damaged"), pytest.raises(UsageError, match="which has none that can be read"):
            given_masks.read(path)

    def test_order_is_that_of_the_network_and_others_are_refused(self):
        masks = drawn()
        backwards = {path: masks[path] for path in reversed(masks)}
        assert [*given_masks.matching(backwards, SHAPES, "masks")] == [*SHAPES]
        with pytest.raises(UsageError, match=r"^masks must be .* fc1/kernel of \(64, 300\), where the network's is \(9, 9\)"):
            given_masks.matching(masks, SHAPES | {"fc1/kernel": (9, 9)}, "masks")
        with pytest.raises(UsageError, match=r"\(not in both: fc3/kernel\)$"):
            given_masks.matching(masks, {path: SHAPES[path] for path in ("fc1/kernel", "fc2/kernel")}, "masks")

    def test_empty_arrays_are_refused(self, tmp_path):
        np.savez(tmp_path / "some.npz", a=np.zeros((0, 3), "uint8"))
        with pytest.raises(UsageError, match="masks must have entries; got empty arrays"):
            given_masks.identity(str(tmp_path / "some.npz"))

    def test_the_order_of_patterns_counts(self, tmp_path):
        addresses = set()
        for patterns in ({"fc1": 0.1, "fc*": 0.2}, {"fc*": 0.2, "fc1": 0.1}):
            (tmp_path / "d.json").write_text(json.dumps(patterns))
            addresses.add(Config(prune=Prune("snip", densities=str(tmp_path / "d.json"))).address)
        assert len(addresses) == 2

    @pytest.mark.parametrize("text", ["[]", "{", '{"a": 2}', "{}"])
    def test_a_json_file_without_densities_is_refused(self, tmp_path, text):
        (tmp_path / "d.json").write_text(text)
        with pytest.raises(UsageError, match=r"^densities in a .json file must be an object"):
            Prune("snip", densities=str(tmp_path / "d.json"))


@pytest.mark.slow
def test_runs_have_the_masks_and_the_densities_that_they_are_given(tmp_path, file, capsys):
    (tmp_path / "d.json").write_text(json.dumps({"fc1": 0.01}))

    def run(*arguments, exports=False):
        given = ["main", "--train_steps=1", "--snapshot_steps=0", *arguments, f"--workdir={tmp_path / 'runs'}"]
        with contextlib.nullcontext() if exports else unexported():
            assert main.main(given) == 0, capsys.readouterr().err
        config, _ = flags.experiment(flags.parse(given, main.PURPOSE, flags.experiment_groups()))
        folder = tmp_path / "runs" / config.address
        with np.load(folder / "masks.npz") as masks, np.load(folder / "snapshots" / "step-0.npz") as weights:
            return folder, dict(masks), dict(weights)

    def counts(masks):
        return [int(mask.sum()) for mask in masks.values()]

    _, masks, weights = run(f"--masks={file}")
    for path, mask in drawn().items():
        np.testing.assert_array_equal(masks[path], mask)
    folder, magnitude, _ = run("--method=magnitude", exports=True)
    _, signs, others = run(f"--masks={folder}/saved_model", "--ablation=reinit_magnitudes")
    for path, mask in magnitude.items():
        np.testing.assert_array_equal(signs[path], mask)
        kept = (mask != 0) & (masks[path] != 0)
        assert (np.sign(others[path]) == np.sign(weights[path]))[kept].all()
        assert (others[path] != weights[path])[kept].all()
    for densities in ("magnitude", str(folder)):
        _, random, _ = run("--method=random", f"--densities={densities}")
        assert counts(random) == counts(magnitude)
        assert (random["fc1/kernel"] != magnitude["fc1/kernel"]).any()
    assert counts(run("--method=random", f"--densities={tmp_path}/d.json")[1])[0] == 192
    assert "must be of the kernels of the network" in mistake(f"--masks={file}", "--model=convnet", capsys=capsys)
    assert "densities must be for layers of the model" in mistake(
        f"--densities={tmp_path}/d.json", "--model=convnet", capsys=capsys
    )


def test_options_are_fields_that_are_compared(file):
    assert dataclasses.replace(Prune(masks=file)) == Prune(masks=file)
