"""What is read of runs, from directories and from archives: the same of both, and nothing that is damaged stops it."""

import gzip
import json
import shutil

import numpy as np
import pytest
from made_runs import LAYERS, config, write

from tf_pruneinit.errors import UsageError
from tf_pruneinit.pruning import neurons
from tf_pruneinit.reporting import collect, run_sources
from tf_pruneinit.runtime import files


def archived(workdir, path):
    several, _ = run_sources.sources([str(workdir)])
    run_sources.write(str(path), several)
    return path


def test_an_archive_gives_the_same_runs_and_gaps(tmp_path):
    work = tmp_path / "work"
    write(work, config("synflow", 0.9, 1), 0.75, "a note", empty_neurons=2)
    write(work, config("dense", seed=1))
    (write(work, config(seed=2)) / "result.json").unlink()
    failed = write(work, config(seed=3))
    (failed / "result.json").unlink()
    (failed / "failure.json").write_text(json.dumps({"error": "memory ran out"}))
    path = archived(work, tmp_path / "runs.jsonl")
    directories, lines = collect.read([str(work)]), collect.read([str(path)])

    def told(run):
        counts = {name: (n, kept.tolist()) for name, (n, kept) in run.source.neurons().items()}
        return run.config, run.accuracy, run.layers, run.note, run.source.records(), counts

    assert [told(run) for run in lines.runs] == [told(run) for run in directories.runs]
    assert len(lines.runs) == 2 and len(lines.runs[0].source.records()) == 10
    assert [(gap.kind, gap.reason) for gap in lines.gaps] == [(gap.kind, gap.reason) for gap in directories.gaps]
    assert {gap.reason for gap in lines.gaps} == {"after step 100", "memory ran out"}
    assert (neurons.sparsities(lines.runs[1].source.neurons()) == 1).sum() == 4


def test_neurons_are_the_outputs_that_a_result_names(tmp_path):
    made = write(tmp_path / "work", config())
    name = next(iter(LAYERS))
    masks = {name: np.ones((3, 3, 2, 4), np.uint8)}
    masks[name][:, :, 0, 1:] = 0
    files.save_arrays(str(made / "masks.npz"), masks, compressed=True)

    def counted():
        incoming, remaining = run_sources.Directory(str(made)).neurons()[name]
        return incoming, remaining.tolist()

    assert counted() == (18, [18, 9, 9, 9])
    result = json.loads((made / "result.json").read_text())
    for outputs, expected in (([2, 3], (9, [9, 0, 0, 0, 9, 9, 9, 9])), ([2], (36, [9, 36]))):
        layers = [{**layer, "outputs": outputs} for layer in result["layers"] if layer["name"] == name]
        (made / "result.json").write_text(json.dumps(result | {"layers": layers}))
        assert counted() == expected
    for damaged in ("x", [9], 3):
        (made / "result.json").write_text(json.dumps(result | {"layers": [{"name": name, "outputs": damaged}]}))
        assert run_sources.Directory(str(made)).neurons() is None


def test_an_archive_of_an_archive_is_the_same_file(tmp_path):
    write(tmp_path / "work", config(), 0.8)
    first = archived(tmp_path / "work", tmp_path / "first.jsonl")
    assert archived(first, tmp_path / "second.jsonl").read_bytes() == first.read_bytes()


def test_an_archive_grows_by_runs_that_are_new(tmp_path):
    write(tmp_path / "one", config(seed=0), 0.8)
    write(tmp_path / "two", config(seed=0), 0.1)
    write(tmp_path / "two", config(seed=1), 0.9)
    path = archived(tmp_path / "one", tmp_path / "runs.jsonl")
    several, _ = run_sources.sources([str(path), str(tmp_path / "two")])
    assert run_sources.write(str(path), several) == 2
    assert [run.accuracy for run in collect.read([str(path)]).runs] == [0.8, 0.9]


@pytest.mark.parametrize("content", ["[]", "{}", '"done"', '{"steps": 100', "3"])
def test_a_run_with_a_damaged_result_is_not_complete_and_makes_room_for_one_that_is(tmp_path, content):
    (write(tmp_path / "one", config(seed=0), 0.8) / "result.json").write_text(content)
    write(tmp_path / "two", config(seed=0), 0.9)
    damaged, _ = run_sources.sources([str(tmp_path / "one")])
    assert run_sources.complete(damaged) == set()
    path = archived(tmp_path / "one", tmp_path / "runs.jsonl")
    assert run_sources.complete(run_sources.replaced(str(path))) == set()
    several, _ = run_sources.sources([str(path), str(tmp_path / "two")])
    run_sources.write(str(path), several)
    assert [run.accuracy for run in collect.read([str(path)]).runs] == [0.9]


def test_an_archive_does_not_lose_a_run_that_it_has(tmp_path):
    write(tmp_path / "one", config(seed=0), 0.8)
    write(tmp_path / "one", config(seed=1), 0.8)
    (write(tmp_path / "one", config(seed=2)) / "result.json").unlink()
    path = archived(tmp_path / "one", tmp_path / "runs.jsonl")
    content = path.read_bytes()
    write(tmp_path / "two", config(seed=0), 0.1)
    with pytest.raises(UsageError, match=rf"has 1 complete run that would be lost, as {config(seed=1).address}: name another"):
        archived(tmp_path / "two", path)
    with pytest.raises(UsageError, match="there is no run to save in"):
        run_sources.write(str(path), [])
    assert path.read_bytes() == content
    write(tmp_path / "two", config(seed=1), 0.1)
    archived(tmp_path / "two", path)
    assert [run.accuracy for run in collect.read([str(path)]).runs] == [0.1, 0.1]


def test_an_archive_does_not_replace_a_file_of_another_kind(tmp_path):
    write(tmp_path / "work", config(), 0.8)
    (tmp_path / "notes.txt").write_text("precious")
    with pytest.raises(UsageError, match=r"archive must be a new file, or an archive of runs; got .*notes\.txt"):
        archived(tmp_path / "work", tmp_path / "notes.txt")
    assert (tmp_path / "notes.txt").read_text() == "precious"
    (tmp_path / "empty").write_text("")
    archived(tmp_path / "work", tmp_path / "empty")


@pytest.mark.parametrize("order", [("archive", "later"), ("later", "archive")])
def test_an_archive_takes_what_has_been_completed_since(tmp_path, order):
    (write(tmp_path / "sooner", config(seed=0)) / "result.json").unlink()
    archived(tmp_path / "sooner", tmp_path / "archive")
    write(tmp_path / "later", config(seed=0), 0.9)
    several, _ = run_sources.sources([str(tmp_path / name) for name in order])
    assert run_sources.write(str(tmp_path / "archive"), several) == 1
    assert [run.accuracy for run in collect.read([str(tmp_path / "archive")]).runs] == [0.9]


def test_an_archive_takes_of_unfinished_runs_the_furthest(tmp_path):
    for name, kept in (("sooner", 2), ("later", 5)):
        path = write(tmp_path / name, config(seed=0))
        (path / "result.json").unlink()
        lines = (path / "records.jsonl").read_text().splitlines(keepends=True)
        (path / "records.jsonl").write_text("".join(lines[:kept]))
    several, _ = run_sources.sources([str(tmp_path / name) for name in ("sooner", "later")])
    run_sources.write(str(tmp_path / "archive"), several)
    (source,), _ = run_sources.sources([str(tmp_path / "archive")])
    assert len(source.records()) == 5


def test_the_last_step_is_known_though_a_record_before_it_is_damaged(tmp_path):
    path = write(tmp_path, config())
    (path / "records.jsonl").write_text('nonsense\n{"step": 900}\n{"step": 10')
    assert run_sources.Directory(str(path)).last_step() == 900


def test_masks_and_records_that_cannot_be_read_are_none(tmp_path, recwarn):
    path = write(tmp_path, config())
    (path / "masks.npz").write_bytes(b"nonsense")
    (path / "records.jsonl").write_text("nonsense\n")
    nowhere = run_sources.Directory(str(tmp_path / "nowhere"))
    for source in (run_sources.Directory(str(path)), nowhere):
        assert source.neurons() is None and source.records() == () and source.last_step() == 0
    assert nowhere.values("config.json") is None
    assert not recwarn.list


def test_damaged_lines_are_gaps(tmp_path):
    write(tmp_path / "work", config(seed=0), 0.8)
    path = archived(tmp_path / "work", tmp_path / "runs.jsonl")
    (line,) = path.read_text().splitlines()
    held = json.loads(line)
    lines = [
        line,
        line[: len(line) // 2],
        "[]",
        json.dumps({**held, "name": "../a"}),
        json.dumps({**held, "name": "a", "config.json": 3}),
    ]
    path.write_text("\n".join(lines))
    found = collect.read([str(path)])
    assert len(found.runs) == 1
    assert [gap.what for gap in found.gaps] == [f"{path}, line {n}" for n in (2, 3, 4)] + [f"{path}/a"]


@pytest.mark.parametrize("field, value", [("records", [{"step": 1}]), ("records", 3), ("neurons", {"k": 1}), ("neurons", [])])
def test_a_line_with_a_part_that_is_damaged_is_read_without_it(tmp_path, field, value):
    write(tmp_path / "work", config(seed=0), 0.8)
    path = archived(tmp_path / "work", tmp_path / "runs.jsonl")
    path.write_text(json.dumps({**json.loads(path.read_text()), field: value}))
    (run,) = collect.read([str(path)]).runs
    assert not (run.source.neurons() if field == "neurons" else run.source.records())


@pytest.mark.parametrize("content", [b"", b"nonsense\n", b"\xff\x00", b"network,dataset\n"])
def test_a_file_that_is_no_archive_is_a_mistake(tmp_path, content):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(UsageError, match=r"an archive of them; got .*file"):
        collect.read([str(tmp_path / "file")])


def test_every_prefix_of_an_archive_is_read_or_refused(tmp_path):
    write(tmp_path / "work", config(seed=0), 0.8)
    path = archived(tmp_path / "work", tmp_path / "runs.jsonl")
    content = path.read_bytes()
    outcomes = set()
    for end in np.linspace(0, len(content) - 2, 40, dtype=int):
        path.write_bytes(content + content[:end])
        outcomes.add((len(collect.read([str(path)]).runs), len(collect.read([str(path)]).gaps)))
    assert outcomes == {(1, 0), (1, 1)}


def test_a_working_directory_has_archives_run_directories_or_both(tmp_path):
    for seed in range(3):
        write(tmp_path / str(seed), config(seed=seed), 0.8)
    (tmp_path / "W").mkdir()
    for seed in range(2):
        archived(tmp_path / str(seed), tmp_path / "W" / f"{seed}.jsonl")
    archived(tmp_path / "1", tmp_path / "W" / "of 1 again.jsonl")
    assert [run.seed for run in collect.read([str(tmp_path / "W")]).runs] == [0, 1]
    shutil.copytree(tmp_path / "2", tmp_path / "W", dirs_exist_ok=True)
    found = collect.read([str(tmp_path / "W")])
    assert sorted(run.seed for run in found.runs) == [0, 1, 2]
    assert found.gaps == ()
    several, _ = run_sources.sources([str(tmp_path / "W")])
    assert run_sources.write(str(tmp_path / "W" / "all.jsonl"), several) == 3


def test_a_run_that_ended_otherwise_in_another_archive_is_named_with_its_file(tmp_path):
    for name, accuracy in (("a", 0.8), ("b", 0.7)):
        write(tmp_path / name, config(), accuracy)
        archived(tmp_path / name, tmp_path / f"{name}.jsonl")
        shutil.rmtree(tmp_path / name)
    found = collect.read([str(tmp_path)])
    assert [run.accuracy for run in found.runs] == [0.8]
    (gap,) = found.gaps
    assert gap.kind == "found twice" and str(tmp_path / "b.jsonl") in gap.what and str(tmp_path / "a.jsonl") in gap.reason


def test_what_is_called_like_an_archive_is_named_and_the_others_are_read(tmp_path):
    path = write(tmp_path / "work", config(), 0.8)
    archived(tmp_path / "work", tmp_path / "good.jsonl")
    content = (tmp_path / "good.jsonl").read_bytes()
    (tmp_path / "empty.jsonl").write_bytes(b"")
    (tmp_path / "cut.jsonl").write_bytes(content + content[: len(content) // 2])
    (tmp_path / "records.jsonl").write_bytes((path / "records.jsonl").read_bytes())
    (tmp_path / "packed.jsonl.zst").write_bytes(b"\x28\xb5\x2f\xfd, as zstd begins")
    (tmp_path / "packed.jsonl").write_bytes(gzip.compress(content)[:-8])
    (tmp_path / "changed.jsonl.gz").write_bytes(gzip.compress(content)[:-8] + b"checksum")
    (tmp_path / ".good.jsonl.1234").write_bytes(content[:10])  # As it is being written.
    (tmp_path / "notes.txt").write_text("no archive")
    shutil.rmtree(tmp_path / "work")
    found = collect.read([str(tmp_path)])
    assert len(found.runs) == 1
    assert {gap.what.removeprefix(f"{tmp_path}/"): gap.reason for gap in found.gaps} == {
        "cut.jsonl, line 2": "it does not describe a run",
        "empty.jsonl": "no archive, which has no run: it is empty",
        "packed.jsonl": "it is compressed (gz), and cut after line 1",
        "changed.jsonl.gz": "no archive, which has no run: it is compressed (gz), and damaged",
        "packed.jsonl.zst": "no archive, which has no run: it is compressed (zst), unpack it first",
        "records.jsonl": "no archive, which has no run in 10 lines",
    }


@pytest.mark.parametrize("end", ["gz", "bz2", "xz"])
def test_compressed_archives_are_written_read_and_added_to(tmp_path, end):
    for seed in range(2):
        write(tmp_path / str(seed), config(seed=seed), 0.8)
    plain, packed = tmp_path / "runs.jsonl", tmp_path / f"runs.jsonl.{end}"
    for path in (plain, packed):
        archived(tmp_path / "0", path)
        once = path.read_bytes()
        archived(tmp_path / "0", path)
        assert path.read_bytes() == once
        several, _ = run_sources.sources([str(path), str(tmp_path / "1")])
        assert run_sources.write(str(path), several) == 2
    assert packed.stat().st_size < plain.stat().st_size / 2
    one, other = (run_sources.sources([str(path)])[0] for path in (plain, packed))
    assert [vars(run) | {"path": ""} for run in one] == [vars(run) | {"path": ""} for run in other]
    with pytest.raises(UsageError, match=r"complete run that would be lost"):
        archived(tmp_path / "1", packed)
    # A folder of archives has both, and each run once.
    shutil.rmtree(tmp_path / "0")
    shutil.rmtree(tmp_path / "1")
    assert len(collect.read([str(tmp_path)]).runs) == 2


@pytest.mark.parametrize("name", ["runs.jsonl.zst", "runs.zip"])
def test_an_archive_that_cannot_be_compressed_so_is_refused(tmp_path, name):
    write(tmp_path / "work", config(), 0.8)
    with pytest.raises(UsageError, match=f"archive must end in .gz, .bz2, .xz to be compressed; got .*{name}'"):
        archived(tmp_path / "work", tmp_path / name)
    assert not (tmp_path / name).exists()


@pytest.mark.parametrize("end", ["gz", "bz2", "xz"])
def test_of_a_compressed_archive_that_is_cut_the_runs_before_are_read(tmp_path, end):
    for seed in range(30):
        write(tmp_path / "work", config(seed=seed), 0.8)
    path = archived(tmp_path / "work", tmp_path / f"runs.jsonl.{end}")
    content = path.read_bytes()
    whole = [run.name for run in run_sources.sources([str(path)])[0]]
    counts = set()
    for size in (6, 20, len(content) // 2, 3 * len(content) // 4, -9, -1):
        path.write_bytes(content[:size])
        try:
            runs, damaged = run_sources.sources([str(path)])
        except UsageError as error:
            assert f"which has no run: it is compressed ({end}), and cut after line 0" in str(error)
            continue
        assert [run.name for run in runs] == whole[: len(runs)]
        assert damaged == [(str(path), f"it is compressed ({end}), and cut after line {len(runs)}")]
        counts.add(len(runs))
    assert max(counts, default=0) > 0 or end == "bz2"  # Which has one block of 900 kB.


@pytest.mark.parametrize("end", ["gz", "bz2", "xz"])
def test_a_compressed_archive_whose_bytes_have_changed_is_refused(tmp_path, end):
    write(tmp_path / "work", config(), 0.8)
    path = archived(tmp_path / "work", tmp_path / f"runs.jsonl.{end}")
    content = path.read_bytes()
    for at in (100, len(content) // 2, len(content) - 7):
        path.write_bytes(content[:at] + bytes([content[at] ^ 255]) + content[at + 1 :])
        with pytest.raises(UsageError, match=f"it is compressed \\({end}\\), and (damaged|cut after line 0)$"):
            collect.read([str(path)])


@pytest.mark.parametrize("end", ["", ".gz"])
def test_a_damaged_archive_is_not_replaced(tmp_path, end):
    for seed in range(30):
        write(tmp_path / "work", config(seed=seed), 0.8)
    path = archived(tmp_path / "work", tmp_path / f"runs.jsonl{end}")
    path.write_bytes(path.read_bytes()[:-9])
    content = path.read_bytes()
    with pytest.raises(UsageError, match=r"runs.jsonl\S*', which is damaged \((line 30: it does not|it is compressed)"):
        archived(tmp_path / "work", path)
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "kept, said",
    [
        ("nothing", "which holds none: nothing is in it"),
        ("run", "is the directory of one run; name the one that it is in"),
        ("above", r"holds none: 1 folder without config.json \(W\); .*W seems to be the one"),
        ("above an archive", r"holds none: 1 folder without config.json \(A\); .*A seems to be the one"),
        ("records", "records.jsonl is no archive, which has no run in 10 lines"),
        ("five", r"5 folders without config.json \(0, 1, 2, ...\)$"),
    ],
)
def test_a_directory_without_runs_is_refused_with_what_is_in_it(tmp_path, kept, said):
    path = write(tmp_path / "up" / "W", config(), 0.8)
    given = {"run": path, "above": tmp_path / "up"}.get(kept, tmp_path / "given")
    given.mkdir(exist_ok=True)
    if kept == "above an archive":
        (given / "A").mkdir()
        archived(tmp_path / "up" / "W", given / "A" / "runs.jsonl")
    if kept == "records":
        shutil.copy(path / "records.jsonl", given)
    for name in range(5) if kept == "five" else ():
        (given / str(name)).mkdir()
    with pytest.raises(UsageError, match=said) as caught:
        collect.read([str(given)])
    assert "\n" not in str(caught.value)
