import keras
import numpy as np

import tf_pruneinit


def test_second_iteration_is_of_what_the_first_left_by_hand():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, use_bias=False)])
    model.layers[0].kernel.assign([[2.0, 4.0], [-1.0, -2.0]])
    # The logits of (1, 2) are (0, 0), so that z = ((1, 2), (1, 2)) / 2 (see SNIP): of round(2 sqrt(2)) = 3 weights that stay
    # the last tie, w_10, is none. Then the logits are (2, 0) and all slopes of a row have one size, so that z is as |w|
    # times the image: 2, 4, and 2 * 2. The two that stay are those of the second class.
    data = np.array([[1.0, 2.0], [0.0, 0.0]]), np.array([0, 1])
    masks = tf_pruneinit.masks(tf_pruneinit.prune(model, "iterative_snip", 0.5, data, iterations=2))
    np.testing.assert_array_equal(next(iter(masks.values())), [[0, 1], [0, 1]])
