"""Files that an earlier version wrote, of `tests/data/`, are read by this one; runs it left half-way are resumed."""

import json
import pathlib
import shutil
import sys

import keras
import numpy as np
import pytest
from light_runs import unexported

import tf_pruneinit
from tf_pruneinit import main, report
from tf_pruneinit.training import step as engine

DATA = pathlib.Path(__file__).parent / "data"
sys.path.insert(0, str(DATA))
import write  # noqa: E402

VERSIONS = sorted(path.parent.name for path in DATA.glob("*/version.txt"))
pytestmark = pytest.mark.parametrize("version", VERSIONS)


def masks_of(expected):
    return {name: array for name, array in expected.items() if name not in ("images", "outputs")}


@pytest.mark.slow
@pytest.mark.parametrize("file", ["network.keras", "network.tfpruned"])
def test_a_network_of_every_masked_class_computes_what_it_did(version, file):
    path = DATA / version / file
    model = keras.models.load_model(path) if file.endswith(".keras") else tf_pruneinit.load(path)
    expected = dict(np.load(DATA / version / "network.npz"))
    np.testing.assert_allclose(model(expected["images"], training=False), expected["outputs"], rtol=1e-4, atol=1e-6)
    found = tf_pruneinit.masks(model)
    assert found.keys() == masks_of(expected).keys()
    for path, mask in masks_of(expected).items():
        np.testing.assert_array_equal(found[path], mask)


@pytest.mark.usefixtures("eagerly")
def test_a_network_whose_training_was_saved_trains_on(version):
    model = keras.models.load_model(DATA / version / "network.keras")
    before = tf_pruneinit.masks(model)
    rng = np.random.default_rng(0)
    history = model.fit(rng.normal(size=(8, 4, 4, 2)), rng.integers(0, 3, 8), verbose=0).history
    assert np.isfinite(history["loss"]).all()
    for path, mask in tf_pruneinit.masks(model).items():
        np.testing.assert_array_equal(mask, before[path])


def test_a_complete_run_is_found_again_loaded_and_reported_on(version, tmp_path, capfd):
    workdir = tmp_path / "complete"
    shutil.copytree(DATA / version / "complete", workdir)
    (run,) = workdir.iterdir()
    expected = json.loads((run / "result.json").read_text())
    saved, compressed = (tf_pruneinit.load(run / name) for name in ("saved_model", "model.tfpruned"))
    images = np.random.default_rng(0).integers(0, 256, (4, *saved.input_shape[1:])).astype("uint8")
    np.testing.assert_allclose(saved(images), compressed(images), rtol=1e-4, atol=1e-5)
    with np.load(run / "masks.npz") as masks:
        assert sum(int(mask.sum()) for mask in masks.values()) == expected["remaining"]
    options = ["--method=snip", "--train_steps=4", "--export=saved_model,compressed"]
    assert main.main(["main", *write.COMMON, *options, f"--workdir={workdir}"]) == 0
    assert "is complete" in "".join(capfd.readouterr())
    assert json.loads((run / "result.json").read_text()) == expected
    assert report.main(["report", f"--workdir={workdir}", f"--out={tmp_path / 'report'}"]) == 0


@pytest.mark.slow
@pytest.mark.parametrize("run", write.RUNS)
def test_a_run_half_way_is_resumed_to_its_end(version, tmp_path, monkeypatch, run):
    workdir = tmp_path / run
    shutil.copytree(DATA / version / "runs" / run, workdir)
    (path,) = workdir.glob("*/checkpoints/step-*.npz")
    folder, step = path.parent.parent, int(path.stem.partition("-")[2])
    kept = [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]
    take_steps, taken = engine.Engine.run, []

    def counted(self, shares, part):
        taken.extend(part)
        return take_steps(self, shares, part)

    monkeypatch.setattr(engine.Engine, "run", counted)
    with unexported():
        assert main.main(["main", *write.COMMON, *write.RUNS[run], f"--workdir={workdir}"]) == 0
    # What is rewound is trained for a whole schedule, after the dense run.
    assert len(taken) == write.STEPS - step + (write.STEPS if run == "rewinding" else 0)
    records = [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]
    before = [record for record in kept if record["step"] <= step]
    assert before
    assert records[: len(before)] == before
    assert [record["step"] for record in records][-1] == write.STEPS
    assert [*workdir.glob("*/result.json")]
