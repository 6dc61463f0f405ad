"""Packaging; the version is the one in tf_pruneinit/version.py."""

import pathlib
import re

from setuptools import find_packages, setup

ROOT = pathlib.Path(__file__).parent
ONNX = ["onnx>=1.16", "onnxruntime>=1.18", "tf2onnx>=1.16"]
VERSION = re.search(r'__version__ = "(.+)"', (ROOT / "tf_pruneinit/version.py").read_text())[1]

setup(
    name="tf-pruneinit",
    version=VERSION,
    description="Pruning neural networks at initialization, for TensorFlow and Keras",
    long_description=(ROOT / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=find_packages(include=["tf_pruneinit", "tf_pruneinit.*"]),
    package_data={"tf_pruneinit.reporting": ["page.html", "figures.mplstyle", "published_results.csv"]},
    python_requires=">=3.10,<3.14",
    install_requires=[
        "absl-py>=2.1",
        # Hints for Python 3.10, where an older pip otherwise tries versions for a quarter of an hour: etils, protobuf.
        "etils<1.14; python_version < '3.11'",
        "importlib_resources>=6.0",  # tensorflow-datasets 4.9.10 needs it and does not say so.
        "keras>=3.12,<3.16",  # Whose private attributes tf_pruneinit/layers/keras_internals.py reads.
        "matplotlib>=3.9",
        "numpy>=2.0",
        "pillow>=10.0",
        "plotly>=6.0",
        "protobuf<6.33; python_version < '3.11'",
        "rich>=13.0",
        "scikit-learn>=1.5",
        "scipy>=1.13",
        "tensorboard>=2.20",
        "tensorflow>=2.20,<2.22",
        "tensorflow-datasets>=4.9.10",
        "wrapt>=1.15",
    ],
    extras_require={
        "cuda": ["tensorflow[and-cuda]>=2.20,<2.22"],
        "docs": ["mkdocs-material>=9.6", "mkdocstrings[python]>=0.27"],
        "onnx": ONNX,
        "ray": ["ray>=2.40"],
        "test": [
            *ONNX,
            "hypothesis>=6.100",
            "mypy>=1.11",
            "pytest>=8.0",
            "pytest-timeout>=2.3",
            "pytest-xdist>=3.6",
            "ray>=2.40",
            "ruff>=0.6",
            "selenium>=4.20",
            "submitit>=1.5",
        ],
    },
    entry_points={
        "console_scripts": [
            "tf-pruneinit=tf_pruneinit.main:main",
            "tf-pruneinit-sweep=tf_pruneinit.sweep:main",
            "tf-pruneinit-evaluate=tf_pruneinit.evaluate:main",
            "tf-pruneinit-describe=tf_pruneinit.describe:main",
            "tf-pruneinit-compact=tf_pruneinit.compact:main",
            "tf-pruneinit-report=tf_pruneinit.report:main",
        ]
    },
)
