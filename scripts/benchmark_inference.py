"""Times inference of a pruned network in every form that it can be exported in; prints medians, ratios and sizes.

    python scripts/benchmark_inference.py --models=mlp,resnet20 --sparsity=0.95 --method=magnitude

The variants take turns in one process, with one thread each, on batches of `--batch_size`. The speed-up is the time of the
dense network in the same program divided by the variant's: above 1, pruning helps. The outputs of every variant are compared
with the masked network's first. `mlp` is 1024-2048-2048-2048-1000, the best case for sparse matrices, and also runs as scipy's
CSR matrices. Other names are rows of registry.MODELS, on images of 32x32. ONNX needs the extra `onnx`; LiteRT's interpreter
is ai-edge-litert's, or else TensorFlow's.
"""

import importlib.util
import os
import statistics
import tempfile
import warnings

from absl import app, flags
from benchmarking import seconds_in_turns

_MODELS = flags.DEFINE_list("models", ["mlp", "resnet20"], "mlp, or rows of registry.MODELS")
_METHOD = flags.DEFINE_string("method", "magnitude", "row of registry.METHODS that needs no data")
_SPARSITY = flags.DEFINE_float("sparsity", 0.95, "fraction of the weights to remove", 0.0, 0.999)
_BATCH = flags.DEFINE_integer("batch_size", 1, "images in one call", lower_bound=1)
_ROUNDS = flags.DEFINE_integer("rounds", 30, "turns of each variant that count", lower_bound=1)
_WIDTHS = (2048, 2048, 2048)


def main(_):
    # ONNX and OpenMP read this when they are imported.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    import tensorflow as tf

    tf.get_logger().setLevel("ERROR")
    warnings.simplefilter("ignore")
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    print(f"{_METHOD.value} at {_SPARSITY.value:g}, batches of {_BATCH.value}, one thread, load {os.getloadavg()[0]:.1f}\n")
    print("| network | form | bytes | median (ms) | 10 to 90 % (ms) | speed-up |")
    print("|---|---|---|---|---|---|")
    for name in _MODELS.value:
        _compare(name)


def _compare(name):
    import numpy as np

    import tf_pruneinit
    from tf_pruneinit.pruning import model_copy, stock_layers

    model, shape = _network(name)
    dense = model_copy.copy_with(model, stock_layers.stock)
    masked = tf_pruneinit.prune(model, _METHOD.value, _SPARSITY.value)
    images = np.random.default_rng(0).normal(size=(_BATCH.value, *shape)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        variants = _variants(folder, dense, masked, shape, images)
        expected = variants["TensorFlow, masked"][0](images)
        for form, (run, _) in variants.items():
            if "dense" not in form:
                difference = np.abs(run(images) - expected).max() / max(1, np.abs(expected).max())
                assert difference < 1e-3, f"{form} differs by {difference}"
        runs = {form: lambda run=run: run(images) for form, (run, _) in variants.items()}
        times = {form: seconds[3:] for form, seconds in seconds_in_turns(runs, 3 + _ROUNDS.value, name).items()}
    for form, values in times.items():
        median = statistics.median(values)
        unit = statistics.median(times[f"{form.split(',')[0]}, dense"])
        cuts = statistics.quantiles(values, n=10) if len(values) > 1 else values * 2
        size = f"{variants[form][1]:,}" if variants[form][1] else ""
        spread = f"{1e3 * cuts[0]:.2f} to {1e3 * cuts[-1]:.2f}"
        print(f"| {name} | {form} | {size} | {1e3 * median:.2f} | {spread} | {unit / median:.2f} |", flush=True)


def _network(name):
    import keras

    from tf_pruneinit.models import build

    if name != "mlp":
        return build.build(name, (32, 32, 3), 10, seed=0), (32, 32, 3)
    # Exported networks take images.
    layers = [keras.Input((32, 32, 1)), keras.layers.Flatten()]
    layers += [keras.layers.Dense(width, "relu") for width in _WIDTHS]
    return keras.Sequential([*layers, keras.layers.Dense(1000)]), (32, 32, 1)


def _variants(folder, dense, masked, shape, images):
    """Returns form -> (function from images to logits, bytes)."""
    from scipy.sparse import csr_array

    import tf_pruneinit
    from tf_pruneinit.datasets.dataset import Preprocessing
    from tf_pruneinit.export import converters, network_state, saved_model
    from tf_pruneinit.pruning import strip

    paths = {}
    for form, model in {"dense": tf_pruneinit.with_masks(dense), "masked": masked}.items():
        paths[form] = os.path.join(folder, form)
        saved_model.save(model, paths[form], Preprocessing(1, (0,) * shape[-1], (1,) * shape[-1]), {"dataset": "none"})
    found = {}
    for form, path in paths.items():
        found[f"TensorFlow, {form}"] = (
            _tensorflow(strip.without_masks(saved_model.read(path).model())[0]),
            _bytes(saved_model.read(path).values),
        )
    small = tf_pruneinit.ship(masked)
    found["TensorFlow, compacted"] = _tensorflow(strip.without_masks(small)[0]), _bytes(network_state.of(small).values)
    for form, path in paths.items():
        converters.write("litert", path, f"{path}.tflite")
        found[f"LiteRT, {form}"] = _litert(f"{path}.tflite", images), os.path.getsize(f"{path}.tflite")
    if importlib.util.find_spec("onnxruntime") and importlib.util.find_spec("tf2onnx"):
        for form, path in paths.items():
            converters.write("onnx", path, f"{path}.onnx")
            found[f"onnxruntime, {form}"] = _onnx(f"{path}.onnx"), os.path.getsize(f"{path}.onnx")
    if all(type(layer).__name__ in ("InputLayer", "Flatten", "MaskedDense") for layer in masked.layers):
        found["NumPy, dense"] = _matrices(dense, lambda kernel: kernel)
        found["NumPy, CSR of scipy"] = _matrices(masked, csr_array)
    return found


def _bytes(values):
    return sum(value.nbytes for value in values)


def _tensorflow(model):
    import tensorflow as tf

    serve = tf.function(lambda images: model(images, training=False))
    return lambda images: serve(tf.constant(images)).numpy()


def _litert(path, images):
    if importlib.util.find_spec("ai_edge_litert"):
        from ai_edge_litert import interpreter as lite
    else:
        from tensorflow import lite
    interpreter = lite.Interpreter(model_path=path, num_threads=1)
    given = interpreter.get_input_details()[0]["index"]
    interpreter.resize_tensor_input(given, images.shape)
    interpreter.allocate_tensors()
    gives = interpreter.get_output_details()[0]["index"]

    def run(images):
        interpreter.set_tensor(given, images)
        interpreter.invoke()
        return interpreter.get_tensor(gives)

    return run


def _onnx(path):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda images: session.run(None, {name: images})[0]


def _matrices(model, made):
    """Returns a function that applies dense layers, whose kernels (outputs, inputs) `made` converts, and their bytes."""
    import numpy as np

    layers = [layer for layer in model.layers if hasattr(layer, "kernel")]
    layers = [(made(np.ascontiguousarray(np.transpose(layer.kernel))), layer.bias.numpy()) for layer in layers]

    def run(images):
        x = images.reshape(len(images), -1).T
        x = x[:, 0] if x.shape[1] == 1 else x
        for number, (kernel, bias) in enumerate(layers, 1):
            x = kernel @ x + (bias if x.ndim == 1 else bias[:, None])
            x = np.maximum(x, 0) if number < len(layers) else x
        return x.T.reshape(len(images), -1)

    # A sparse matrix has values, columns and starts of rows.
    parts = [getattr(kernel, name, None) for kernel, _ in layers for name in ("data", "indices", "indptr")]
    return run, sum(part.nbytes for part in parts if part is not None) + sum(bias.nbytes for _, bias in layers)


if __name__ == "__main__":
    app.run(main)
