"""Files of lines, compressed or not: what was written is read, and no more than can be trusted."""

import bz2
import gzip
import lzma

import pytest

from tf_pruneinit.runtime import compressed_lines

PACK = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}


@pytest.mark.parametrize("end", ["", *compressed_lines.ENDINGS])
@pytest.mark.parametrize("content", [b"", b"one\ntwo\n", b"one\r\ntwo", b"\xff\n" * 9999])
def test_lines_that_were_written_are_read(tmp_path, end, content):
    path = str(tmp_path / f"lines{end}")
    compressed_lines.write(path, content)
    assert compressed_lines.read(path) == (content.splitlines(), "")


@pytest.mark.parametrize("end", compressed_lines.ENDINGS)
def test_compressed_files_that_were_put_together_are_read_whole(tmp_path, end):
    path = tmp_path / "lines"
    path.write_bytes(PACK[end](b"one\n") + PACK[end](b"two\n"))
    assert compressed_lines.read(str(path)) == ([b"one", b"two"], "")


def test_a_cut_file_has_the_whole_lines_before_the_cut(tmp_path):
    content = b"".join(b"%d\n" % (number * 12345) for number in range(99999))
    path = tmp_path / "lines.gz"
    path.write_bytes(gzip.compress(content)[:-1000])
    lines, missing = compressed_lines.read(str(path))
    assert 0 < len(lines) < 99999 and lines == content.splitlines()[: len(lines)]
    assert missing == f"it is compressed (gz), and cut after line {len(lines)}"
