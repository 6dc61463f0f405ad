"""Each example runs in small, reports the dense network and the pruned one, and leaves exactly as many weights as it should."""

import importlib.util
import pathlib
import re

import pytest

EXAMPLES = pathlib.Path(__file__).parent.parent / "examples"

# Weights of the dense network, and names and remaining weights of the pruned ones.
COUNTS = {
    "cnn": (21_280, {"snip": 2_128}),
    "mobilenet": (1_506_952, {"synflow": 301_390}),
    "segmentation": (116_416, {"snip": 11_642}),
    "tflite_int8": (35_744, {"snip": 3_574}),
    "transformer": (49_216, {"snip": 9_843, "gradual": 9_843}),
    "two_inputs": (48_512, {"snip": 4_851}),
}


def run(name: str, *flags: str) -> None:
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main(["--small", *flags])


def rows(printed: str) -> dict[str, tuple[list[float], int, int]]:
    """Name of a network -> its figures in percent, remaining weights and all weights."""
    found = re.findall(r"^(\w+) +(.*?) +([\d,]+) of +([\d,]+)$", printed, re.MULTILINE)
    return {
        name: (
            [float(x) for x in re.findall(r"([\d.]+)%", middle)],
            int(remaining.replace(",", "")),
            int(total.replace(",", "")),
        )
        for name, middle, remaining, total in found
    }


def test_all_examples_are_tested():
    assert {path.stem for path in EXAMPLES.glob("*.py")} == COUNTS.keys()


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(COUNTS.keys() - {"tflite_int8"}))
def test_example_reports_the_dense_network_and_exact_counts(name, capsys, eagerly):
    run(name)
    found = rows(capsys.readouterr().out)
    total, pruned = COUNTS[name]
    assert {name: row[1:] for name, row in found.items()} == {
        name: (remaining, total) for name, remaining in {"dense": total, **pruned}.items()
    }
    assert all(percents and all(0 < percent <= 100 for percent in percents) for percents, _, _ in found.values())


@pytest.mark.slow
def test_example_writes_int8_files_of_which_the_pruned_one_deflates_more(capsys, tmp_path):
    run("tflite_int8", f"--out={tmp_path}")
    printed = capsys.readouterr().out
    total, pruned = COUNTS["tflite_int8"]
    assert {name: row[1:] for name, row in rows(printed).items()} == {"dense": (total, total), "snip": (pruned["snip"], total)}
    dense, snip = ((tmp_path / f"{name}.tflite").stat().st_size for name in ("dense", "snip"))
    assert dense == pytest.approx(snip, rel=0.1)
    sizes = [
        int(re.search(rf"^{name} .*% +[\d,]+ +([\d,]+) ", printed, re.MULTILINE)[1].replace(",", ""))
        for name in ("dense", "snip")
    ]
    assert sizes[1] < sizes[0] / 2
