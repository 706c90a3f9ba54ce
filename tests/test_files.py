import errno
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from onemask.errors import OutputError
from onemask.files import refuse_existing, remove_temporaries, write_bytes, write_json, written_whole


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_stands_under_its_name_only_when_the_block_has_ended(tmp_path):
    with written_whole(tmp_path / "new" / "result.png") as temporary:
        temporary.write_text("half")
        assert not (tmp_path / "new" / "result.png").exists()
        assert temporary.parent == tmp_path / "new"  # the same disk, so that the move is atomic
        assert temporary.suffix == ".png"
    assert names(tmp_path / "new") == ["result.png"]
    assert (tmp_path / "new" / "result.png").read_text() == "half"


@pytest.mark.parametrize("failure", [ValueError("bad"), KeyboardInterrupt()])
def test_after_a_failure_the_old_file_is_there_and_nothing_else(tmp_path, failure):
    (tmp_path / "result.txt").write_text("old")

    def write() -> None:
        with written_whole(tmp_path / "result.txt") as temporary:
            temporary.write_text("new")
            raise failure

    with pytest.raises(type(failure)):
        write()
    assert names(tmp_path) == ["result.txt"]
    assert (tmp_path / "result.txt").read_text() == "old"


def test_threads_that_write_one_file_do_not_meet(tmp_path):
    path = tmp_path / "result.txt"
    with written_whole(path) as mine:
        mine.write_text("mine")
        with ThreadPoolExecutor() as pool:
            pool.submit(write_bytes, path, b"theirs").result()
        assert path.read_text() == "theirs"
        assert mine.read_text() == "mine"
    assert path.read_text() == "mine"
    assert names(tmp_path) == ["result.txt"]


@pytest.mark.parametrize("writer", ["12", "12-345"])  # as earlier versions named them, and as they are named now
def test_what_a_killed_writer_left_is_removed_and_nothing_else(tmp_path, writer):
    for name in (f".run.{writer}.partial.json", f".run.{writer}.partial.csv", ".run.partial.json", "run.json"):
        (tmp_path / name).write_text("")
    remove_temporaries(tmp_path, {"run.json"})
    assert names(tmp_path) == sorted([f".run.{writer}.partial.csv", ".run.partial.json", "run.json"])


@pytest.mark.parametrize("name", ["n" * 251 + ".png", "ä" * 125 + ".png", "n" * 255])
def test_a_name_may_be_as_long_as_the_disk_allows(tmp_path, name):
    write_bytes(tmp_path / name, b"whole")
    assert names(tmp_path) == [name]


def test_a_name_that_is_too_long_is_one_clear_error(tmp_path):
    for path in (tmp_path / ("n" * 300), tmp_path / ("n" * 300) / "file"):
        with pytest.raises(OutputError, match="File name too long"):
            write_bytes(path, b"")
    assert names(tmp_path) == []


def test_a_full_disk_is_named_with_what_to_do(tmp_path):

    def write() -> None:
        with written_whole(tmp_path / "result.txt") as temporary:
            temporary.write_text("new")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OutputError, match=r"result\.txt could not be written: No space left.*free space"):
        write()
    assert names(tmp_path) == []


def test_a_file_where_a_folder_is_needed_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "a.json", tmp_path / "file" / "deeper" / "a.json"):
        with pytest.raises(OutputError, match="file is a file; a folder of that name is needed"):
            write_json(path, {})
    assert (tmp_path / "file").read_text() == ""


def test_a_folder_is_not_replaced_by_a_file(tmp_path):
    (tmp_path / "taken").mkdir()
    with pytest.raises(OutputError, match="taken could not be written"):
        write_bytes(tmp_path / "taken", b"data")
    assert names(tmp_path) == ["taken"]


def test_json_is_read_back(tmp_path):
    value = {"ids": [3, 77], "size": None, "name": "säge"}
    write_json(tmp_path / "value.json", value)
    assert json.loads((tmp_path / "value.json").read_text()) == value


def test_what_exists_is_refused_unless_it_may_be_overwritten(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "file", tmp_path):
        with pytest.raises(OutputError, match=r"exists already; choose another place, or pass --overwrite"):
            refuse_existing(path, overwrite=False)
        assert refuse_existing(path, overwrite=True) is None
    assert refuse_existing(tmp_path / "empty", overwrite=False) is None
    assert refuse_existing(tmp_path / "absent", overwrite=False) is None
