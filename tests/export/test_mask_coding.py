import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tf_pruneinit.errors import UsageError
from tf_pruneinit.export import mask_coding


def coded_bytes(mask):
    """The bytes of the two streams, before they are deflated."""
    return sum(mask_coding.encode_mask(mask)[0]["lengths"])


def test_a_mask_coded_by_hand():
    mask = np.array([[0, 0, 0, 0, 1], [0, 0, 0, 0, 0], [0, 1, 0, 0, 0]])
    numbers, code = mask_coding.encode_mask(mask)
    # Gaps of 4 and 6: with two bits of remainder the quotients 1 and 1, 0101, and the remainders 0 and 2, lowest bit first.
    assert numbers == {"count": 2, "inverted": False, "rice": 2, "lengths": [1, 1]}
    assert code == bytes([0b01010000, 0b00010000])
    np.testing.assert_array_equal(mask_coding.decode_mask(numbers, code, 15), mask.ravel())


@given(arrays.arrays(np.uint8, st.integers(0, 300), elements=st.integers(0, 1)))
def test_every_mask_comes_back(mask):
    np.testing.assert_array_equal(mask_coding.decode_mask(*mask_coding.encode_mask(mask), mask.size), mask)


@pytest.mark.parametrize("density", [0.001, 0.01, 0.02, 0.05, 0.1, 0.3, 0.4, 0.5, 0.7, 0.98])
def test_masks_at_random_are_near_their_entropy(density):
    mask = np.random.default_rng(0).random(300_000) < density
    assert coded_bytes(mask) <= 1.04 * mask_coding.entropy_bytes(mask, 0) + 2


def test_masks_of_whole_channels_take_little_more_than_such_at_random():
    mask = np.zeros((500, 600), np.uint8)
    mask[:, :30] = 1
    np.testing.assert_array_equal(mask_coding.decode_mask(*mask_coding.encode_mask(mask), mask.size), mask.ravel())
    assert coded_bytes(mask) <= 1.1 * mask_coding.entropy_bytes(mask, 0)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int64", "bool"])
@pytest.mark.parametrize("count", [0, 1, 1000])
def test_values_come_back_to_the_bit(dtype, count):
    values = np.random.default_rng(0).normal(size=count).astype(dtype)
    content = mask_coding.encode_values(values)
    assert len(content) <= values.nbytes
    assert mask_coding.decode_values(content, count, dtype).tobytes() == values.tobytes()


def test_values_that_are_no_numbers_come_back_to_the_bit():
    values = np.frombuffer(b"\x01\x00\xc0\x7f\x00\x00\x80\xff\x00\x00\x00\x80" * 50, np.float32)  # A NaN, -inf, -0.
    assert mask_coding.decode_values(mask_coding.encode_values(values), len(values), "float32").tobytes() == values.tobytes()


@pytest.mark.slow
def test_what_unpacks_to_more_than_it_should_is_refused_without_unpacking_it():
    import zlib

    bomb = zlib.compress(bytes(100_000_000))
    with pytest.raises(UsageError, match="more than 400,000 bytes"):
        mask_coding.decode_values(bomb, 100_000, "float32")


@given(
    st.binary(max_size=40), st.binary(max_size=40), st.integers(0, 50), st.integers(0, 60), st.integers(0, 500), st.booleans()
)
def test_streams_of_anything_are_a_mask_or_refused(quotients, remainders, count, rice, size, inverted):
    numbers = {"count": count, "inverted": inverted, "rice": rice, "lengths": [len(quotients), len(remainders)]}
    try:
        mask = mask_coding.decode_mask(numbers, quotients + remainders, size)
    except UsageError:
        return
    assert mask.shape == (size,)
    assert np.count_nonzero(mask) == (size - count if inverted else count)
