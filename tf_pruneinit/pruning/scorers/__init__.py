"""Scores how much each weight is worth keeping: one file for each method; the table is `registry.METHODS`.

A scorer is a function `(network, batch, *, <its options>) -> list of tensors`, one for each kernel, of its shape, in the order
of `network.kernels`; larger is more worth keeping, for every method. It is pure: it reads the network and changes nothing.
For methods without data the batch is None.
"""
