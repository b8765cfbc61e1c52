from pathlib import Path

import numpy as np
import pytest

from mstkd_serve.errors import DataError
from mstkd_training.data.encoded import encode_face
from mstkd_training.data.ingest import ingest
from mstkd_training.data.sources.folders import FolderSource, write_folders
from mstkd_training.data.sources.labels import LabelSource, write_labels
from mstkd_training.data.sources.recordio import RecordSource, write_record_set
from mstkd_training.data.sources.recordio_file import (
    pack_record,
    read_index,
    read_record,
    write_records,
)

GROUPS = ("Asian", "Indian")
MAGIC = bytes.fromhex("0a23d7ce")


def folders(root, people):
    write_folders(root, people)
    return FolderSource(root, GROUPS)


def labelled(root, people):
    (root / "pictures").mkdir(parents=True)
    rows = []
    for number, (group, identity, encoded) in enumerate(people):
        (root / "pictures" / f"{number:03}.png").write_bytes(encoded)
        rows.append((f"{number:03}", identity, group))
    write_labels(root / "labels.csv", [("999", "other", "Martian"), *reversed(rows)])
    return LabelSource(root, root / "labels.csv", GROUPS, file="pictures/{file}.png")


def numbered(people):
    names = list(dict.fromkeys(identity for _, identity, _ in people))
    return [(names.index(identity), encoded) for _, identity, encoded in people]


def record_set(root, people, ranges=True):
    write_record_set(root, numbered(people), ranges=ranges)
    numbers = [number for number, _ in numbered(people)]
    groups = dict(zip(numbers, (group for group, _, _ in people), strict=True))
    write_labels(root / "labels.csv", [("-", n, g) for n, g in groups.items()])
    return RecordSource(root, GROUPS, root / "labels.csv")


def unindexed_record_set(root, people):
    return record_set(root, people, ranges=False)


def record_set_a_group(root, people):
    for group in GROUPS:
        write_record_set(root / group, numbered([one for one in people if one[0] == group]))
    return RecordSource(root, GROUPS)


MAKERS = (folders, labelled, record_set, unindexed_record_set, record_set_a_group)


@pytest.fixture(params=MAKERS, ids=lambda maker: maker.__name__)
def source(request, tmp_path, people):
    return request.param(tmp_path / "source", people)


def test_every_source_gives_the_same_faces_in_the_same_order(source, people, tmp_path):
    assert len(source) == 24
    read = ingest(source, GROUPS, tmp_path / "packed")
    assert (tmp_path / "packed").read_bytes() == b"".join(encoded for _, _, encoded in people)
    np.testing.assert_array_equal(read.identities, np.repeat(np.arange(8), 3))
    np.testing.assert_array_equal(read.groups, np.repeat([0, 1], 12))
    assert read.unreadable == ()
    assert len(read.offsets) == 25
    assert [group for group, _ in read.names] == ["Asian"] * 4 + ["Indian"] * 4


def test_the_order_of_the_groups_is_the_recipes(tmp_path, people):
    write_folders(tmp_path / "f", people)
    read = ingest(FolderSource(tmp_path / "f", GROUPS[::-1]), GROUPS[::-1], tmp_path / "packed")
    assert read.names[0] == ("Indian", "indian_0")
    assert (read.groups == np.repeat([0, 1], 12)).all()


def test_damaged_images_are_listed_and_skipped(tmp_path, people, face):
    damaged = [*people, ("Asian", "asian_3", b"no image"), ("Asian", "asian_4", face(5)[:300])]
    read = ingest(folders(tmp_path / "f", damaged), GROUPS, tmp_path / "packed")
    assert len(read.identities) == 24
    assert [Path(name).name for name, _ in read.unreadable] == [
        "asian_3_0004.jpg",
        "asian_4_0001.png",
    ]
    assert read.unreadable[0][1] == "no JPEG, PNG, BMP or WebP image"


def test_a_label_without_its_file_is_listed_and_skipped(tmp_path, people):
    source = labelled(tmp_path / "s", people)
    (tmp_path / "s" / "pictures" / "004.png").unlink()
    read = ingest(source, GROUPS, tmp_path / "packed")
    assert len(read.identities) == 23
    assert read.unreadable == ((str(tmp_path / "s/pictures/004.png"), "No such file or directory"),)


def test_a_group_that_nothing_is_left_of_says_what_could_not_be_read(tmp_path, people):
    broken = [(group, name, b"?" if group == "Indian" else data) for group, name, data in people]
    with pytest.raises(
        DataError, match=r"group 'Indian' has 0 images of 0 identities: .*12 images could not"
    ):
        ingest(folders(tmp_path / "f", broken), GROUPS, tmp_path / "packed")
    lonely = [one for one in people if one[0] == "Asian" or one[1] == "indian_0"]
    with pytest.raises(DataError, match="'Indian' has 3 images of 1 identities"):
        ingest(folders(tmp_path / "g", lonely), GROUPS, tmp_path / "packed")


def test_another_size_is_refused_with_the_remedy_or_scaled_when_asked(tmp_path, people):
    large = encode_face(np.full((150, 120, 3), 77, np.uint8))
    source = folders(tmp_path / "f", [*people, ("Asian", "asian_0", large)])
    with pytest.raises(DataError, match=r"_0004\.png: 120 x 150 pixels, .*data\.resize=true"):
        ingest(source, GROUPS, tmp_path / "packed")
    assert len(ingest(source, GROUPS, tmp_path / "packed", resize=True).identities) == 25


def test_excluded_identities_are_left_out_and_must_exist(tmp_path, people):
    source = folders(tmp_path / "f", people)
    excluded = ("asian_1", "Indian/indian_2")
    read = ingest(source, GROUPS, tmp_path / "packed", exclude=excluded)
    assert len(read.identities) == 18
    assert not {name for _, name in read.names} & {"asian_1", "indian_2"}
    with pytest.raises(DataError, match=r"excluded asian_2/Asian: not in the data"):
        ingest(source, GROUPS, tmp_path / "packed", exclude=("asian_2/Asian",))


def test_progress_counts_every_image(tmp_path, people):
    seen = []
    ingest(folders(tmp_path / "f", people), GROUPS, tmp_path / "packed", progress=seen.append)
    assert sum(seen) == 24


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: FolderSource(root / "nowhere", GROUPS), "no such folder"),
        (lambda root: FolderSource(root, ("Asian", "asian")), r"no folder of group 'asian'; it"),
        (lambda root: RecordSource(root, GROUPS), r"train\.rec: no such file"),
        (lambda root: LabelSource(root, root / "l.csv", GROUPS), r"l\.csv: no such file"),
    ],
)
def test_what_is_missing_is_named(tmp_path, people, make, message):
    write_folders(tmp_path, people)
    with pytest.raises(DataError, match=message):
        make(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,identity\na,b\n", r"has no column group; it has file, identity"),
        ("file,identity,group\na,,Asian\n", "line 2 has no identity"),
        ("file,identity,group\na,b\n", "line 2 has no group"),
        ("file,identity,group\na,x,Asian\nb,x,Indian\n", "identity x is in the groups 'Asian' and"),
    ],
)
def test_mistakes_in_labels_are_named(tmp_path, text, message):
    (tmp_path / "l.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        LabelSource(tmp_path, tmp_path / "l.csv", GROUPS)


def test_records_that_hold_the_magic_number_are_put_together_again(tmp_path):
    for number, data in enumerate(
        (MAGIC, b"abcd" + MAGIC + MAGIC + b"x", b"ab" + MAGIC + b"cd", MAGIC * 3, b"")
    ):
        folder = tmp_path / str(number)
        write_records(folder, [pack_record([3], data), pack_record([4, 0], data)])
        offsets = read_index(folder / "train.idx")
        records = [read_record(folder / "train.rec", offset) for offset in offsets.values()]
        assert [(r.labels, r.flag, r.data) for r in records] == [
            ((3.0,), 0, data),
            ((4.0, 0.0), 2, data),
        ]


def test_damaged_records_are_listed_and_skipped(tmp_path, people):
    source = record_set(tmp_path / "s", people, ranges=False)
    offsets = read_index(tmp_path / "s" / "train.idx")
    content = bytearray((tmp_path / "s" / "train.rec").read_bytes())
    content[offsets[5]] ^= 255
    content[offsets[9] + 40 : offsets[9] + 80] = bytes(40)
    (tmp_path / "s" / "train.rec").write_bytes(content[: offsets[23] + 30])
    read = ingest(source, GROUPS, tmp_path / "packed")
    reasons = {name.rsplit(" ")[-1]: reason for name, reason in read.unreadable}
    assert reasons.keys() == {"5", "9", "23"}
    assert reasons["5"] == "no record begins here"
    assert reasons["23"] == "record is cut off"
    assert len(read.identities) == 21


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train.idx", b"", "is empty"),
        ("train.idx", b"0 zero\n", "not an index"),
        ("property", b"8,96,112\n", r"says '8,96,112', needed is 'IDENTITIES,112,112'"),
        ("train.rec", b"\0" * 64, "first record cannot be read"),
    ],
)
def test_a_damaged_record_set_is_named(tmp_path, people, name, content, message):
    record_set(tmp_path, people)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        RecordSource(tmp_path, GROUPS, tmp_path / "labels.csv")


def test_one_record_set_of_several_groups_needs_labels_for_all(tmp_path, people):
    record_set(tmp_path, people)
    with pytest.raises(DataError, match=r"one record set for 2 groups\. Set data\.labels"):
        RecordSource(tmp_path, GROUPS)
    write_labels(tmp_path / "labels.csv", [("-", "0", "Asian")])
    with pytest.raises(DataError, match=r"record 4: identity 1 has no group"):
        list(RecordSource(tmp_path, GROUPS, tmp_path / "labels.csv"))
    assert len(list(RecordSource(tmp_path, ("Any",)))) == 24
