"""Archives of images, read where they are: the same tasks as from folders, and nothing that an archive can do."""

import io
import shutil
import struct
import tarfile
import zipfile

import numpy as np
import pytest
from vtab import jpeg, picture

from idat_tune import data, tasks
from idat_tune.data import archives
from idat_tune.data.ways import sources
from idat_tune.errors import BadInput

FORMS = ("zip", "tar", "gztar", "bztar", "xztar")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A store of this test's own; tasks that it makes known are forgotten after it."""
    monkeypatch.setattr(tasks, "TASKS", dict(tasks.TASKS))
    monkeypatch.setattr(tasks, "_BY_KEY", dict(tasks._BY_KEY))
    monkeypatch.setenv("IDAT_TUNE_DATA", str(tmp_path / "store"))


@pytest.fixture
def birds(tmp_path):
    """Real images in folders, wrapped, with what a Mac leaves beside them."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 8), ("test", 4)):
        for label, name in enumerate(("crow", "owl")):
            folder = tmp_path / "birds/set" / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                (folder / f"{i}.jpg").write_bytes(jpeg(picture(rng, label, 2, 16)))
    (tmp_path / "birds/__MACOSX").mkdir()
    (tmp_path / "birds/__MACOSX/._0.jpg").write_bytes(b"x")
    (tmp_path / "birds/set/train/heron").mkdir()
    (tmp_path / "birds/set/readme.txt").write_text("x")
    return tmp_path / "birds"


def zipped(path, entries):
    """A zip of names and bytes, ZipInfo in place of a name where it matters."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return path


def tarred(path, entries):
    """A tar of names (or TarInfo) and bytes."""
    with tarfile.open(path, "w:gz" if path.suffix == ".tgz" else "w") as archive:
        for name, content in entries:
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def classes(count=10):
    return [(f"{name}/{i}.jpg", b"%d %s" % (i, name.encode())) for name in ("cat", "dog") for i in range(count)]


def special(name, kind, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def refused(path, what, **choices):
    with pytest.raises(BadInput, match=what) as failure:
        sources(path, ["birds"], **choices)
    assert "\n" not in str(failure.value)


# The same as from folders


@pytest.mark.parametrize("form", FORMS)
def test_an_archive_gives_the_same_task_as_its_folder(birds, tmp_path, form):
    path = shutil.make_archive(str(tmp_path / "packed"), form, birds)
    (packed,) = data.import_(path, ["birds"], folder=tmp_path / "a")
    (plain,) = data.import_(birds, ["birds"], folder=tmp_path / "b")
    assert data.content_hash("birds", tmp_path / "a") == data.content_hash("birds", tmp_path / "b")
    assert packed.class_counts == plain.class_counts == {"crow": 12, "owl": 12}
    expected = ("1 .txt", "folder __MACOSX (1 file)", "folder set/train/heron (empty)")
    assert set(packed.left_out) == set(plain.left_out) == set(expected)


def test_images_are_named_by_archive_and_entry(tmp_path):
    path = zipped(tmp_path / "cats.zip", classes())
    (source,) = sources(path, ["birds"])
    item = next(source.items("train"))
    assert item.name.startswith(f"{path}/cat/")
    with pytest.raises(BadInput, match=r"cats\.zip/cat/\d\.jpg is not a readable image"):
        data.import_(path, ["birds"])


def test_layouts_are_refused_and_decided_as_in_folders(tmp_path):
    path = zipped(tmp_path / "a.zip", [*classes(), ("test/1.jpg", b"1")])
    refused(path, "two ways: test may be images without labels")
    assert sources(path, ["birds"], layout="splits")[0].left_out == ("folder test without labels (1 file)",)


def test_files_without_a_suffix_are_told_by_their_first_bytes(tmp_path):
    entries = [(name.removesuffix(".jpg"), b"\xff\xd8\xff" + content) for name, content in classes()]
    for path in (zipped(tmp_path / "a.zip", entries), tarred(tmp_path / "a.tgz", entries)):
        assert sum(sources(path, ["birds"])[0].sizes.values()) == 20


def test_an_archive_is_known_by_its_content_and_not_by_its_name(tmp_path):
    path = zipped(tmp_path / "cats.bin", classes())
    assert sources(path, ["birds"])[0].class_counts == (10, 10)


@pytest.mark.parametrize("name", ["Krähe", "カラス"])
def test_names_in_utf_8_are_read_even_where_the_zip_does_not_say_so(tmp_path, name):
    path = zipped(tmp_path / "a.zip", [(f"{name}/{i}.jpg", b"%d" % i) for i in range(5)] + classes())
    packed = path.read_bytes()
    marked = bytearray(packed)
    for start, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        at = -1
        while (at := packed.find(start, at + 1)) >= 0:
            marked[at + flags + 1] &= ~8
    path.write_bytes(marked)
    assert name in sources(path, ["birds"])[0].task.class_names


def test_backslashes_of_windows_programs_part_folders(tmp_path):
    path = zipped(tmp_path / "a.zip", [(name.replace("/", "\\"), content) for name, content in classes()])
    assert sources(path, ["birds"])[0].class_counts == (10, 10)


def test_hard_links_are_files_and_other_odd_entries_are_counted(tmp_path):
    odd = [
        (special("cat/second.jpg", tarfile.LNKTYPE, "cat/0.jpg"), b""),
        (special("cat/link.jpg", tarfile.SYMTYPE, "../../etc/passwd"), b""),
        (special("dog/pipe.jpg", tarfile.FIFOTYPE), b""),
        ("cat/1.jpg", b"again"),
    ]
    (source,) = sources(tarred(tmp_path / "a.tar", [*classes(), *odd]), ["birds"])
    assert source.class_counts == (10, 10)  # the second name is an exact copy
    assert "1 exact copies of other images were left out" in source.notes
    assert set(source.left_out) == {"1 entries of a name that a later one has", "1 links", "1 no regular files"}


def test_links_in_a_zip_are_left_out(tmp_path):
    link = zipfile.ZipInfo("cat/link.jpg")
    link.external_attr = 0o120777 << 16
    assert sources(zipped(tmp_path / "a.zip", [*classes(), (link, b"/etc/passwd")]), ["birds"])[0].left_out == (
        "1 links",
    )


# What an archive must not do


@pytest.mark.parametrize("name", ["../x.jpg", "cat/../../x.jpg", "/etc/x.jpg", "C:/x.jpg", "..\\..\\x.jpg"])
def test_entries_that_lead_out_are_refused(tmp_path, name):
    refused(zipped(tmp_path / "a.zip", [*classes(), (name, b"x")]), r"a\.zip, entry '.*': it leads out of the archive")
    if "\\" not in name:
        refused(tarred(tmp_path / "a.tar", [*classes(), (name, b"x")]), r"a\.tar, entry '.*': it leads out")


def test_a_zip_that_unpacks_to_a_thousand_times_its_size_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MAX_BYTES", 2**20)
    bomb = [*classes(), ("cat/bomb.jpg", bytes(2**22))]
    refused(zipped(tmp_path / "a.zip", bomb), "as decompression bombs do; if it is none, unpack it")
    refused(tarred(tmp_path / "a.tgz", bomb), "as decompression bombs do; if it is none, unpack it")


def test_a_packed_tar_is_unpacked_no_further_than_it_may(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MAX_BYTES", 2**20)
    pieces = []
    piece = archives._piece
    monkeypatch.setattr(archives, "_piece", lambda *given: pieces.append(piece(*given)) or pieces[-1])
    refused(tarred(tmp_path / "a.tgz", [("cat/bomb.jpg", bytes(2**26))]), "decompression bombs")
    assert sum(map(len, pieces)) < 2**24


def test_archives_of_endless_entries_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MAX_ENTRIES", 15)
    refused(zipped(tmp_path / "a.zip", classes()), "has more than 15 entries; unpack it")
    refused(tarred(tmp_path / "a.tar", classes()), "has more than 15 entries; unpack it")


def test_one_image_larger_than_an_image_may_be_is_named_when_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr("idat_tune.data.pixels.MAX_BYTES", 50)
    path = zipped(tmp_path / "a.zip", [*classes(), ("cat/large.jpg", bytes(100))])
    with pytest.raises(BadInput, match=r"a\.zip/cat/large\.jpg has more than the 50 bytes"):
        archives.read(path).read("cat/large.jpg")


def test_a_size_that_lies_unpacks_no_more_than_it_says(tmp_path):
    path = zipped(tmp_path / "a.zip", [("cat/0.jpg", bytes(10**6))])
    packed = path.read_bytes().replace(struct.pack("<I", 10**6), struct.pack("<I", 10))
    path.write_bytes(packed)
    with pytest.raises(BadInput, match=r"cat/0\.jpg cannot be read: Bad CRC"):
        archives.read(path).read("cat/0.jpg")


def test_encrypted_and_unknown_packings_are_refused_with_the_way_out(tmp_path):
    path = zipped(tmp_path / "a.zip", classes())
    packed = bytearray(path.read_bytes())
    at = packed.find(b"PK\1\2")
    packed[at + 8] |= 1
    (tmp_path / "secret.zip").write_bytes(packed)
    refused(tmp_path / "secret.zip", r"/cat/0\.jpg is encrypted; unpack .*secret\.zip with its password and import")
    packed[at + 8] &= ~1
    packed[at + 10] = 9  # deflate64
    (tmp_path / "odd.zip").write_bytes(packed)
    refused(tmp_path / "odd.zip", "packed in a way that cannot be read")
    (tmp_path / "a.7z").write_bytes(b"7z\xbc\xaf\x27\x1c")
    refused(tmp_path / "a.7z", "is a 7z archive, which cannot be read; unpack it and import the folder")


@pytest.mark.parametrize("form", FORMS)
def test_broken_archives_are_refused_in_a_sentence(birds, tmp_path, form):
    whole = shutil.make_archive(str(tmp_path / "packed"), form, birds)
    content = (tmp_path / whole).read_bytes()
    rng = np.random.default_rng(0)
    for i in range(20):
        broken = tmp_path / f"broken{i}{whole[len(str(tmp_path / 'packed')) :]}"
        spoilt = bytearray(content[: int(rng.integers(1, len(content)))] if i % 2 else content)
        for place in rng.integers(0, len(spoilt), 30):
            spoilt[place] = int(rng.integers(256))
        broken.write_bytes(spoilt)
        try:
            data.import_(broken, ["birds"], folder=tmp_path / f"store{i}")
        except BadInput as failure:
            assert "\n" not in str(failure)  # noqa: PT017 - some that are spoilt can be read all the same


def test_tar_entries_that_lead_round_end(tmp_path):
    path = tarred(tmp_path / "a.tar", classes(1))
    content = bytearray(path.read_bytes())
    header = content[:512]
    header[124:136] = b"\xff" * 8 + (-512).to_bytes(4, "big", signed=True)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    content[:512] = header
    path.write_bytes(content)
    refused(path, "is not a whole tar file")


def test_no_room_for_a_packed_tar_is_said(tmp_path, monkeypatch):
    def full():
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryFile", full)
    with pytest.raises(Exception, match=r"a\.tgz cannot be unpacked in .* \(No space left on device\); make room"):
        sources(tarred(tmp_path / "a.tgz", classes()), ["birds"])
