"""Published results from a file."""

import pytest
from made_runs import trial

from tf_pruneinit import references
from tf_pruneinit.curves import View
from tf_pruneinit.errors import UsageError

HEAD = ",".join(references.COLUMNS)
ROW = 'A paper,ResNet-20,CIFAR-10,ltr,init,73.79,90.03,0.15,3,"batch 512, AMP"'


@pytest.fixture
def write(tmp_path):
    def written(*rows, head=HEAD):
        path = tmp_path / "references.csv"
        path.write_text("\n".join([head, *rows]) + "\n")
        return str(path)

    return written


def test_reads_a_row(write):
    (one,) = references.read(write(ROW))
    assert (one.method, one.sparsity, one.accuracy, one.deviation, one.seeds) == (
        "lottery_ticket_rewinding", 0.738, pytest.approx(0.9003), pytest.approx(0.0015), 3,
    )  # fmt: skip
    assert one.label == "LTR [A paper; batch 512, AMP]"


def test_deviation_seeds_and_variant_may_lack(write):
    (one,) = references.read(write("A paper,ResNet-20,CIFAR-10,snip,,50,90,,,its own"))
    assert (one.deviation, one.seeds, one.variant) == (None, None, "")


@pytest.mark.parametrize(
    "row, message",
    [
        (ROW.replace("90.03", "good"), "accuracy_mean must be a number from 0 to 100; got 'good' in row 3"),
        (ROW.replace("90.03", "9003"), "got '9003' in row 3"),
        (ROW.replace("90.03", "nan"), "got 'nan' in row 3"),
        (ROW.replace("73.79", ""), "got none in row 3"),
        (ROW.replace("73.79", "100"), "below 100"),
        (ROW.replace("A paper", ""), "must say their source; got none in row 3"),
        ("A paper,ResNet-20", "row 3"),
        (ROW.replace(",3,", ",0,"), "seeds"),
        (ROW + ',"open', "row 2"),
    ],
)
def test_a_bad_row_is_named(write, row, message):
    with pytest.raises(UsageError, match=message):
        references.read(write(ROW, row))


def test_a_column_that_lacks_is_named(write):
    with pytest.raises(UsageError, match="lacks recipe"):
        references.read(write(head=HEAD.replace(",recipe", "")))


def test_no_file_is_a_mistake(tmp_path):
    with pytest.raises(UsageError, match="nowhere"):
        references.read(str(tmp_path / "nowhere"))
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="binary"):
        references.read(str(tmp_path / "binary"))


def test_belongs_to_a_network_and_dataset_whatever_they_are_written_like(write):
    rows = references.read(write(ROW, ROW.replace("ResNet-20", "VGG-16"), ROW.replace("CIFAR-10", "CIFAR-100")))
    view = View([trial(0.9, dataset="cifar10", model="resnet20")])
    assert references.of_view(view, rows) == rows[:1]
