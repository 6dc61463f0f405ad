import importlib.util

import numpy as np
import pytest
import tensorflow as tf

import tf_pruneinit
from tf_pruneinit.datasets.dataset import Preprocessing
from tf_pruneinit.errors import RunError, UsageError
from tf_pruneinit.export import converters
from tf_pruneinit.export import saved_model as export
from tf_pruneinit.models import build


@pytest.fixture(scope="module")
def saved_model(tmp_path_factory):
    path = str(tmp_path_factory.mktemp("deployment") / "saved_model")
    model = tf_pruneinit.prune(build.build("lenet_300_100", (28, 28, 1), 10, 0), "magnitude", 0.95)
    export.save(model, path, Preprocessing(1, (0,), (1,)), {"dataset": "mnist"})
    return path


@pytest.mark.slow
def test_litert_computes_the_same_and_is_sparse(saved_model, tmp_path):
    said = converters.write("litert", saved_model, str(tmp_path / "model.tflite"))
    size = (tmp_path / "model.tflite").stat().st_size
    assert f"{size:,} bytes" in said
    assert size < 0.25 * 4 * 266_200
    runner = tf.lite.Interpreter(model_path=str(tmp_path / "model.tflite")).get_signature_runner("serving_default")
    image = np.random.default_rng(3).normal(size=(1, 28, 28, 1)).astype(np.float32)
    loaded = export.load(saved_model)
    expected = loaded.signatures["serving_default"](tf.constant(image))["logits"]
    np.testing.assert_allclose(runner(images=image)["logits"], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_file_that_computes_something_else_is_an_error(saved_model, tmp_path, monkeypatch):
    wrong = str(tmp_path / "wrong")
    model = tf_pruneinit.prune(build.build("lenet_300_100", (28, 28, 1), 10, 1), "magnitude", 0.5)
    export.save(model, wrong, Preprocessing(1, (0,), (1,)), {"dataset": "mnist"})
    with pytest.raises(RunError, match="the LiteRT file differs from the SavedModel by"):
        other = export.load(wrong)
        monkeypatch.setattr(export, "load", lambda path: other)
        converters.write("litert", saved_model, str(tmp_path / "model.tflite"))
    assert not (tmp_path / "model.tflite").exists()


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("tf2onnx") is None, reason="tf2onnx is not installed (the extra onnx)")
def test_onnx_computes_the_same(saved_model, tmp_path):
    converters.write("onnx", saved_model, str(tmp_path / "model.onnx"))
    assert (tmp_path / "model.onnx").stat().st_size > 0


def test_without_tf2onnx_the_extra_is_named_before_anything_is_made(monkeypatch, saved_model, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="export=onnx needs tf2onnx: pip install"):
        converters.require(["onnx"])
    with pytest.raises(UsageError, match="tf2onnx"):
        converters.write("onnx", saved_model, str(tmp_path / "model.onnx"))
    converters.require(["compressed", "litert"])
