"""Scorers: how much each weight is worth keeping. One file a method; the table is `registry.METHODS`.

A scorer is a function `(network, batch, *, <its options>) -> list of tensors`, one tensor a kernel, of its shape, in the order
of `network.kernels`; larger is more worth keeping, for every method. It is pure: it reads the network and changes nothing.
Methods without data are given None for the batch.
"""
