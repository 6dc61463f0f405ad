"""Prunes a small Transformer on text, at initialization by SNIP and in training by GradualMagnitude.

    python examples/transformer.py

The sentences follow a rule: each adjective is praise or blame, and the word "not" before it turns it around. What there is more
of is the label. The kernels of attention are pruned as all others; embeddings are no kernels and stay.
"""

import argparse

import keras
import numpy as np

import tf_pruneinit

PRAISE, BLAME = ("good", "great", "fine", "bright", "warm"), ("bad", "dull", "poor", "cold", "weak")
OTHERS = ("the", "film", "was", "and", "its", "plot", "actors", "very", "often", "with")
LENGTH = 16


def write(count: int, seed: int) -> tuple[list[str], np.ndarray]:
    """Returns sentences of 16 words, and whether there is more praise than blame in each."""
    rng = np.random.default_rng(seed)
    sentences, labels = [], np.zeros((count, 1), "float32")
    for i in range(count):
        words, balance = list(rng.choice(OTHERS, LENGTH)), 0
        for at in range(1, LENGTH, 3)[: rng.choice([1, 3, 5])]:
            praise, turned = rng.integers(2, size=2)
            words[at] = rng.choice(PRAISE if praise else BLAME)
            words[at - 1] = "not" if turned else words[at - 1]
            balance += 1 if praise != turned else -1
        sentences.append(" ".join(words))
        labels[i] = balance > 0
    return sentences, labels


def build(vocabulary: int, blocks: int, width: int = 64) -> keras.Model:
    layers = keras.layers
    tokens = keras.Input((LENGTH,), dtype="int32")
    positions = layers.Embedding(LENGTH, width)(keras.ops.arange(LENGTH))
    x = layers.Embedding(vocabulary, width)(tokens) + positions
    for _ in range(blocks):
        normal = layers.LayerNormalization()(x)
        x = x + layers.MultiHeadAttention(4, width // 4)(normal, normal)
        x = x + layers.Dense(width)(layers.Dense(4 * width, "gelu")(layers.LayerNormalization()(x)))
    x = layers.GlobalAveragePooling1D()(layers.LayerNormalization()(x))
    return keras.Model(tokens, layers.Dense(1, "sigmoid")(x))


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sparsity", type=float, default=0.8, help="fraction of weights removed, in [0, 1); default 0.8")
    parser.add_argument("--seed", type=int, default=0, help="of weights and of the order of sentences; default 0")
    parser.add_argument("--small", action="store_true", help="trains one block for two steps, on few sentences")
    options = parser.parse_args(argv)
    keras.utils.set_random_seed(options.seed)

    count, epochs = (32, 2) if options.small else (4000, 12)
    (sentences, labels), (test_sentences, test_labels) = write(count, seed=1), write(count // 4, seed=2)
    vectorize = keras.layers.TextVectorization(output_sequence_length=LENGTH)
    vectorize.adapt(sentences)
    tokens, test_tokens = (np.array(vectorize(texts)) for texts in (sentences, test_sentences))

    model = build(vectorize.vocabulary_size(), blocks=1 if options.small else 2)
    schedule = keras.optimizers.schedules.CosineDecay(1e-3, epochs * count // 32, warmup_target=2e-3, warmup_steps=count // 32)
    model.compile(keras.optimizers.AdamW(schedule), "binary_crossentropy", metrics=["accuracy"])
    dense = tf_pruneinit.with_masks(model)  # the same weights, all of which remain
    pruned = tf_pruneinit.prune(model, "snip", options.sparsity, (tokens[:200], labels[:200]))
    gradual = tf_pruneinit.with_masks(model)  # until the callback removes some
    every = 1 if options.small else 50
    removes = tf_pruneinit.callbacks.GradualMagnitude(options.sparsity, update_every=every, scope="global")

    print(f"{'network':<10}{'accuracy':>10}{'remaining weights':>28}")
    for name, network, callbacks in (("dense", dense, []), ("snip", pruned, []), ("gradual", gradual, [removes])):
        network.fit(tokens, labels, batch_size=32, epochs=epochs, verbose=0, callbacks=callbacks)
        accuracy = network.evaluate(test_tokens, test_labels, verbose=0, return_dict=True)["accuracy"]
        summary = tf_pruneinit.summary(network)
        print(f"{name:<10}{accuracy:>10.1%}{summary.remaining:>14,} of {summary.total:>10,}")


if __name__ == "__main__":
    main()
