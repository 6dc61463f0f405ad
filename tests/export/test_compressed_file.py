import hashlib
import json
import zlib

import keras
import numpy as np
import pytest
from compaction import small_blocks

import tf_pruneinit
from tf_pruneinit.errors import UsageError
from tf_pruneinit.export import compressed_file, network_state
from tf_pruneinit.models import build
from tf_pruneinit.pruning import masks
from tf_pruneinit.runtime import machine

SHAPE = (8, 8, 1)


def pruned(name="convnet", sparsity=0.9):
    return tf_pruneinit.prune(build.build(name, SHAPE, 4, 0), "magnitude", sparsity)


@pytest.fixture(scope="module")
def model():
    return pruned()


@pytest.fixture(scope="module")
def content(model):
    return compressed_file.encoded(network_state.of(model, {"dataset": "digits", "sparsity_asked": 0.9}))[0]


class TestCompress:
    def test_the_name_of_a_keras_file_is_refused(self, tmp_path):
        with pytest.raises(UsageError, match=r"a compressed file must not end in \.keras"):
            tf_pruneinit.compress(pruned(sparsity=0.7), tmp_path / "model.keras")

    @pytest.mark.slow
    @pytest.mark.parametrize("network", [lambda: pruned(sparsity=0.7), small_blocks.pruned_blocks])
    def test_loads_back_in_one_call_to_the_bits_that_remain(self, network, tmp_path):
        model = network()
        path = str(tmp_path / "model.tfpruned")
        tf_pruneinit.compress(model, path)
        loaded = tf_pruneinit.load(path)
        assert list(masks.masks(loaded)) == list(masks.masks(model))
        for (name, mask), other in zip(masks.masks(model).items(), masks.masks(loaded).values(), strict=True):
            np.testing.assert_array_equal(mask, other)
            kernel, other = (masks.kernels(one)[name].variable.numpy() for one in (model, loaded))
            assert kernel[mask != 0].tobytes() == other[mask != 0].tobytes()
            assert not other[mask == 0].any()
        kept = [{id(kernel.variable) for kernel in masks.kernels(one).values()} for one in (model, loaded)]
        rest = [
            [v.numpy() for v in one.variables if id(v) not in ours] for one, ours in zip((model, loaded), kept, strict=True)
        ]
        assert [value.tobytes() for value in rest[0]] == [value.tobytes() for value in rest[1]]
        images = np.random.default_rng(0).random((2, *model.input_shape[1:]), np.float32)
        np.testing.assert_array_equal(model(images, training=False), loaded(images, training=False))

    @pytest.mark.parametrize("sparsity", [0.5, 0.9, 0.98])
    def test_a_file_is_near_the_entropy_of_masks_and_remaining_values(self, sparsity, tmp_path):
        sizes = tf_pruneinit.compress(pruned("lenet_300_100", sparsity), str(tmp_path / "model"))
        assert sizes.compressed == (tmp_path / "model").stat().st_size
        assert sizes.compressed - sizes.head <= 1.02 * sizes.bound + 200
        assert sizes.dense == 4 * build.build("lenet_300_100", SHAPE, 4, 0).count_params() - 4 * sum(
            mask.size for mask in masks.masks(pruned("lenet_300_100")).values()
        )

    @pytest.mark.slow
    def test_masks_of_whole_channels_take_a_fraction_of_their_entropy(self, tmp_path):
        model = pruned("lenet_300_100", 0.0)
        mask = np.zeros((64, 300), np.uint8)
        mask[:, ::20] = 1
        masks.set_masks(model, {"fc1/kernel": mask})
        network = network_state.of(model)
        place = network.kernels["fc1/kernel"]
        entry = parts(compressed_file.encoded(network)[0])[0]["variables"][place]
        assert entry["mask"]["bytes"] < 0.1 * sum(entry["mask"]["lengths"])
        tf_pruneinit.compress(model, str(tmp_path / "model"))
        np.testing.assert_array_equal(tf_pruneinit.masks(tf_pruneinit.load(str(tmp_path / "model")))["fc1/kernel"], mask)

    def test_a_layer_left_out_has_no_mask_afterwards(self, tmp_path):
        model = tf_pruneinit.prune(build.build("lenet_300_100", SHAPE, 4, 0), "magnitude", 0.9, exclude=("fc3",))
        tf_pruneinit.compress(model, str(tmp_path / "model"))
        assert list(tf_pruneinit.masks(tf_pruneinit.load(str(tmp_path / "model")))) == ["fc1/kernel", "fc2/kernel"]

    def test_a_model_without_masks_is_kept_as_it_is(self, tmp_path):
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
        tf_pruneinit.compress(model, str(tmp_path / "model"))
        loaded = tf_pruneinit.load(str(tmp_path / "model"))
        assert not masks.kernels(loaded)
        np.testing.assert_array_equal(loaded.get_weights()[0], model.get_weights()[0])

    def test_a_layer_that_holds_code_is_refused_and_nothing_written(self, tmp_path):
        inputs = keras.Input((3,))
        outputs = keras.layers.Dense(2)(keras.layers.Lambda(lambda x: x + 1, output_shape=(3,))(inputs))
        with pytest.raises(UsageError, match="that hold no code; this network has others"):
            tf_pruneinit.compress(tf_pruneinit.with_masks(keras.Model(inputs, outputs)), str(tmp_path / "model"))
        assert not list(tmp_path.iterdir())


def parts(content):
    end = 16 + int.from_bytes(content[8:16], "little")
    return json.loads(zlib.decompress(content[16:end])), content[end:-32]


def put_together(head, streams):
    packed = zlib.compress(head if isinstance(head, bytes) else json.dumps(head).encode())
    body = b"TFPRUNE\x01" + len(packed).to_bytes(8, "little") + packed + streams
    return body + hashlib.sha256(body).digest()


def refused(content, tmp_path):
    (tmp_path / "model").write_bytes(content)
    with pytest.raises(UsageError) as caught:
        compressed_file.read(str(tmp_path / "model")).model()
    assert "\n" not in str(caught.value)
    return str(caught.value)


class TestDamaged:
    def test_every_truncation_is_refused(self, content, tmp_path):
        for length in {*range(60), *range(0, len(content), max(1, len(content) // 100)), len(content) - 1}:
            refused(content[:length], tmp_path)

    def test_every_flipped_byte_is_refused(self, content, tmp_path):
        places = np.random.default_rng(0).integers(0, len(content), 150)
        for place in {*range(20), *places.tolist(), len(content) - 1}:
            refused(content[:place] + bytes([content[place] ^ 0x55]) + content[place + 1 :], tmp_path)

    def test_a_newer_version_says_so(self, content, tmp_path):
        assert "version 2 of the format; this package reads 1" in refused(content[:7] + b"\x02" + content[8:], tmp_path)

    def test_what_is_not_there_is_refused(self, tmp_path):
        with pytest.raises(UsageError, match="cannot be read: No such file"):
            compressed_file.read(str(tmp_path / "nowhere"))


class TestHostile:
    """Files whose checksum is right, and whose head lies."""

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            (lambda head: head["variables"][0].update(shape=[2**40]), "GiB of memory"),
            (lambda head: head["variables"][0].update(shape=[2**60]), "a length must be"),
            (lambda head: head["variables"][0].update(shape=[-1, 5]), "a length must be"),
            (lambda head: head["variables"][0].update(shape=["8"]), "a length must be"),
            (lambda head: head["variables"][0].update(type="object"), "must be of the types"),
            (lambda head: head["variables"][0].update(bytes=2**40), "ends within its variables"),
            (lambda head: head["variables"].pop(), "more bytes than its variables"),
            (lambda head: head.pop("variables"), "lacks entries"),
            (lambda head: head.update(variables=7), "lacks entries"),
            (lambda head: head.update(variables=[7]), "lacks entries"),
            (lambda head: head.update(metadata=[]), "metadata must be an object"),
            (lambda head: head.update(architecture=None), "a Keras model needs layers of Keras"),
            (
                lambda head: head.update(architecture={"class_name": "Lambda", "module": "keras.layers", "config": {}}),
                "no code",
            ),
            (lambda head: head.update(architecture={"class_name": "system", "module": "os", "config": {}}), "no code"),
            (lambda head: head.update(architecture={"class_name": "Dense", "module": "keras.layers", "config": {}}), "network"),
        ],
    )
    def test_a_head_that_lies_is_refused(self, content, tmp_path, change, said):
        head, streams = parts(content)
        change(head)
        assert said in refused(put_together(head, streams), tmp_path)

    def test_masks_that_lie_are_refused(self, content, tmp_path):
        head, streams = parts(content)
        (entry,) = [entry for entry in head["variables"] if "mask" in entry][:1]
        for name, value in [
            ("count", 2**40),
            ("count", 0),
            ("rice", 39),
            ("rice", 2**30),
            ("lengths", [0, 0]),
            ("lengths", [2**40, 0]),
            ("path", 3),
        ]:
            kept = entry["mask"][name]
            entry["mask"][name] = value
            refused(put_together(head, streams), tmp_path)
            entry["mask"][name] = kept

    def test_a_mask_for_what_is_no_kernel_is_refused(self, content, tmp_path):
        head, streams = parts(content)
        next(entry for entry in head["variables"] if "mask" in entry)["mask"]["path"] = "../../other/kernel"
        assert "../../other/kernel" in refused(put_together(head, streams), tmp_path)

    def test_a_layer_larger_than_the_memory_is_refused_before_it_is_made(self, content, tmp_path):
        head, streams = parts(content)
        text = json.dumps(head["architecture"])
        assert '"filters": 32' in text or '"units": 4' in text
        head["architecture"] = json.loads(text.replace('"units": 4', '"units": 100000000000'))
        assert "GiB of memory" in refused(put_together(head, streams), tmp_path)

    def test_a_bomb_is_not_unpacked(self, content, tmp_path, monkeypatch):
        monkeypatch.setattr(compressed_file, "_MOST_HEAD", 1 << 20)
        assert "unpacks to more than" in refused(put_together(bytes(1 << 22), b""), tmp_path)

    @pytest.mark.parametrize("head", [b"", b"[]", b"{", b"\xff", b"[" * 100_000, b"1" * 5000])
    def test_a_head_that_is_no_object_is_refused(self, tmp_path, head):
        refused(put_together(head, b""), tmp_path)

    def test_more_than_the_memory_is_refused(self, content, tmp_path, monkeypatch):
        monkeypatch.setattr(machine, "free_memory", lambda: 1000)
        assert "GiB of memory" in refused(content, tmp_path)
