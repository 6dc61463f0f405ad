"""Files of lines, compressed or not: what was written is read, and no more than can be trusted."""

import bz2
import errno
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


@pytest.mark.parametrize("end", compressed_lines.ENDINGS)
def test_no_line_of_a_file_with_a_changed_bit_is_trusted(tmp_path, end):
    path = tmp_path / f"lines{end}"
    compressed_lines.write(str(path), b"".join(b"%d\n" % (number * 12345) for number in range(999)))
    content = path.read_bytes()
    for at in range(10, len(content), len(content) // 50):  # Of gzip's first ten bytes some say nothing of the content.
        path.write_bytes(content[:at] + bytes([content[at] ^ 1 << at % 8]) + content[at + 1 :])
        assert compressed_lines.read(str(path)) == ([], f"it is compressed ({end[1:]}), and damaged")


@pytest.mark.parametrize("end", compressed_lines.ENDINGS)
def test_a_file_that_the_system_cannot_read_is_not_called_damaged(tmp_path, end, monkeypatch):
    path = str(tmp_path / f"lines{end}")
    compressed_lines.write(path, b"one\n")

    def fail(*_):
        raise OSError(errno.EIO, "Input/output error")

    kinds = {".gz": gzip.GzipFile, ".bz2": bz2.BZ2File, ".xz": lzma.LZMAFile}
    monkeypatch.setattr(kinds[end], "readline", fail)
    monkeypatch.setattr(kinds[end], "__next__", fail, raising=False)
    with pytest.raises(OSError, match="Input/output error"):
        compressed_lines.read(path)


def test_a_cut_file_has_the_whole_lines_before_the_cut(tmp_path):
    content = b"".join(b"%d\n" % (number * 12345) for number in range(99999))
    path = tmp_path / "lines.gz"
    path.write_bytes(gzip.compress(content)[:-1000])
    lines, missing = compressed_lines.read(str(path))
    assert 0 < len(lines) < 99999 and lines == content.splitlines()[: len(lines)]
    assert missing == f"it is compressed (gz), and cut after line {len(lines)}"
