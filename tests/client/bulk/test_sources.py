import io
import os

import pytest

from mstkd_client.bulk import SourceError, sources
from mstkd_client.bulk.sources import open_source, read_listing, write_listing


def listed(source, part_size=4):
    """List a source through a file, part by part."""
    folder = source.parent
    with (folder / "listing").open("w+b") as file:
        count, offsets = write_listing(open_source(source), file, part_size, folder)
    parts = [read_listing(folder / "listing", offset, part_size) for offset in offsets]
    assert [len(part) for part in parts[:-1]] == [part_size] * (len(parts) - 1)
    assert sum(map(len, parts)) == count
    return [path for part in parts for path in part]


def touch(folder, *paths):
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).touch()


def test_a_folder_is_searched_by_suffix_in_sorted_order_without_hidden_files(tmp_path):
    wanted = ["B.JPG", "a.png", "deep/er/c.jpeg", "deep/d.WebP", "z.bmp"]
    touch(
        tmp_path / "in", *wanted, "notes.txt", "png", ".hidden.png", ".git/e.png", "deep/.x/y.png"
    )
    assert listed(tmp_path / "in") == sorted(wanted)


def test_linked_folders_are_followed_but_not_in_circles(tmp_path):
    touch(tmp_path / "in", "sub/a.png")
    touch(tmp_path / "elsewhere", "b.png")
    (tmp_path / "in/sub/up").symlink_to(tmp_path / "in")
    (tmp_path / "in/self").symlink_to("self")
    (tmp_path / "in/other").symlink_to(tmp_path / "elsewhere")
    assert listed(tmp_path / "in") == ["other/b.png", "sub/a.png"]


def test_a_subfolder_that_cannot_be_listed_stays_in_the_listing(tmp_path, monkeypatch):
    touch(tmp_path / "in", "a.png", "locked/b.png")
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert listed(tmp_path / "in") == ["a.png", "locked"]


def test_any_name_survives_the_listing(tmp_path):
    odd = ["new\nline.png", 'quo"te.png', "ünï çødé 顔.png", "tab\t.png", "back\\slash.png"]
    touch(tmp_path / "in", *odd)
    (tmp_path / "in" / os.fsdecode(b"latin\xff.png")).touch()
    assert listed(tmp_path / "in") == sorted([*odd, "latin\udcff.png"])


def test_a_list_gives_each_path_once(tmp_path):
    text = "\ufeffb.png\r\n/abs/a.png\n\nsub/ü.png\nb.png\nnames need no suffix"
    (tmp_path / "list.txt").write_bytes(text.encode() + b"\n\xff.png\n")
    expected = ["/abs/a.png", "b.png", "sub/ü.png", "names need no suffix", "\udcff.png"]
    assert listed(tmp_path / "list.txt") == sorted(expected)
    assert open_source(tmp_path / "list.txt").base == tmp_path


def test_a_listing_beyond_memory_is_sorted_in_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "RUN_LENGTH", 7)
    paths = [f"{index * 37 % 101:03}\n.png" for index in range(101)]
    touch(tmp_path / "in", *paths)
    assert listed(tmp_path / "in", part_size=10) == sorted(paths)
    (tmp_path / "list").write_text("\n".join(["x", "y"] * 20))
    assert listed(tmp_path / "list") == ["x", "y"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing", None, "does not exist"),
        ("face.png", b"x", "is an image"),
        ("empty.txt", b"\n\n", "names no file"),
        ("binary.dat", b"a.png\nb\0c", "line 2"),
        ("long.txt", b"x" * 70_000, "line 1"),
    ],
)
def test_what_is_no_source_is_named(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceError, match=rf"(?s){name}.*{message}|{message}.*{name}"):
        write_listing(open_source(tmp_path / name), io.BytesIO(), 1, tmp_path)


def test_a_folder_without_images_is_refused(tmp_path):
    touch(tmp_path / "in", "notes.txt")
    with pytest.raises(SourceError, match=r"in holds no file .*\.webp"):
        listed(tmp_path / "in")
