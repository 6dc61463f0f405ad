"""A training step that is exported runs in JAX with the losses that were recorded, and one that trains otherwise does not."""

import dataclasses
import pathlib

import numpy as np
import processes
import pytest

SCRIPTS = pathlib.Path(__file__).parent.parent / "scripts"
EXPORT = (
    "import runpy, sys; sys.path.insert(0, sys.argv[1]); runpy.run_path(sys.argv[1] + '/export_step.py', run_name='__main__')"
)
PRECISIONS = ("float32", "mixed_bfloat16")


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    path = tmp_path_factory.mktemp("step") / "convnet.npz"
    network = ["--model=convnet", "--image_shape=8,8,1", "--batch_size=16", "--learning_rate=0.1"]
    processes.run(["-c", EXPORT, SCRIPTS, *network, f"--out={path}"], check=True, capture_output=True, text=True)
    return path


@pytest.fixture
def scripts(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))


def test_a_file_holds_programs_weights_and_falling_losses(exported, scripts):
    import step_file

    about, programs = step_file.read(exported)
    assert (about["model"], [program.precision for program in programs]) == ("convnet", list(PRECISIONS))
    for program in programs:
        state = dict(zip(program.names, program.state, strict=True))
        kernels = [name for name in state if name.endswith("/kernel")]
        masks = [state[name.replace("kernel", "mask")] for name in kernels]
        assert sum(map(np.sum, masks)) / sum(mask.size for mask in masks) == pytest.approx(0.1, abs=1e-3)
        assert all((state[name][mask == 0] == 0).all() for name, mask in zip(kernels, masks, strict=True))
        assert np.shape(program.indices) == (20, 16)
        assert program.losses[-1] < program.losses[0] - 0.2
        # Masks alone do not change: loss and hits come first, then the rest of the state.
        assert len(program.changed) == len(program.state) - len(masks)
        assert str(SCRIPTS.parent) not in program.text


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(PRECISIONS)), ids=PRECISIONS)
def test_jax_has_the_recorded_losses_and_misses_them_with_another_step(exported, scripts, number):
    pytest.importorskip("jax")
    import jax
    import run_step_jax
    import step_file

    about, programs = step_file.read(exported)
    program = programs[number]
    with jax.enable_x64(True):
        step = run_step_jax.compiled(program)

        def off(changed):
            return step_file.difference(run_step_jax.checked(about, changed, step), program.losses)

        tolerance = run_step_jax.TOLERANCES[program.precision]
        assert off(program) <= tolerance / 2
        named = list(zip(program.names, program.state, strict=True))
        dense = [np.ones_like(value) if name.endswith("/mask") else value for name, value in named]
        moving = [np.full_like(value, 0.2) if "velocity" in name else value for name, value in named]
        for wrong in (dense, moving):
            assert off(dataclasses.replace(program, state=wrong)) > tolerance
        assert min(run_step_jax.seconds(about, program, step, steps=1, rounds=2)) > 0


def test_what_is_no_exported_step_is_refused_in_one_line(tmp_path, scripts, capsys):
    import run_step_jax

    np.savez(tmp_path / "other.npz", a=1)
    for path in (tmp_path / "other.npz", tmp_path / "missing.npz"):
        with pytest.raises(SystemExit) as end:
            run_step_jax.main([str(path)])
        assert end.value.code == 2
        assert "is no file of scripts/export_step.py" in capsys.readouterr().err.splitlines()[-1]


def test_arrays_come_back_to_the_bit(tmp_path, scripts):
    import step_file

    state = [np.array([0.0, -0.0, 1.5, np.nan], np.float32), np.array(7), np.zeros((2, 3), np.uint8), np.ones((0, 2))]
    program = step_file.Program("float32", 1, "text", list("abcd"), state, {2: 2}, [[0]], [1.0])
    step_file.write(tmp_path / "x.npz", {"model": "m"}, [program, program])
    about, found = step_file.read(tmp_path / "x.npz")
    assert about == {"model": "m"}
    assert found[1].changed == {2: 2}
    for one, other in zip(state, found[1].state, strict=True):
        assert (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes())


def test_the_table_beside_pytorch_has_each_measurement_and_says_what_is_missing(scripts):
    import compare_step_torch

    row = {"precision": "float32", "batch_size": 8, "ms": [2.0, 1.0, 3.0], "difference": 0.001, "agrees": True}
    found = {"jax": [row], "eager": [{**row, "ms": [4.0, 4.0, 4.0]}], "compiled": "no time left"}
    line = compare_step_torch._line("resnet20", "float32", found)
    assert (
        line
        == "| resnet20, 8 | float32 | 2.00 (1.00 to 3.00) | 4.00 (4.00 to 4.00) | no time left | 0.50 | 1.0e-03 | 1.0e-03 |"
    )
