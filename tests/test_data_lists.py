"""Tables of paths or images, in the many shapes that people have them."""

import csv
import json
import random
import unicodedata

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from birds import BIRDS, classes_of, home, refused, sizes  # noqa: F401

from idat_tune import data
from idat_tune.data.ways import sources
from idat_tune.errors import BadInput


def write_csv(path, rows, header=("path", "label")):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


@pytest.fixture
def listed(tmp_path):
    """Rows of a list, and the folder of their images."""
    classes_of(tmp_path / "images", 10)
    return [(f"images/{name}/{i:03d}.jpg", name) for name in BIRDS for i in range(10)]


def test_a_csv_of_paths_and_names_of_classes(tmp_path, listed):
    (one,) = data.import_(write_csv(tmp_path / "list.csv", listed), ["birds"])
    assert one.task.class_names == BIRDS
    assert sizes(one.task) == (19, 5, 6)


def test_a_csv_of_numbers_with_splits_and_other_names_of_columns(tmp_path, listed):
    splits = ["training", "train", "train", "validation", "TEST"]
    rows = [(BIRDS.index(label), path, splits[i % 5]) for i, (path, label) in enumerate(listed)]
    (one,) = data.import_(write_csv(tmp_path / "list.csv", rows, ("Class", "filename", "split")), ["birds"])
    assert sizes(one.task) == (18, 6, 6)
    assert one.task.class_names == ("0", "1", "2")


def test_a_tsv_may_have_commas_in_paths(tmp_path, listed):
    (tmp_path / "images/owl/000.jpg").rename(tmp_path / "images/owl/a, b.jpg")
    rows = [(path.replace("owl/000", "owl/a, b"), label) for path, label in listed]
    (tmp_path / "list.tsv").write_text("\n".join("\t".join(row) for row in [("path", "label"), *rows]))
    assert sum(sizes(data.import_(tmp_path / "list.tsv", ["birds"])[0].task)) == 30


def test_a_parquet_of_paths(tmp_path, listed):
    table = pa.table({"path": [path for path, _ in listed], "label": [BIRDS.index(label) for _, label in listed]})
    pq.write_table(table, tmp_path / "list.parquet")
    assert data.import_(tmp_path / "list.parquet", ["birds"])[0].task.classes == 3


@pytest.mark.parametrize("shape", ["bytes", "struct"])
def test_a_parquet_of_images(tmp_path, listed, shape):
    encoded = [(tmp_path / path).read_bytes() for path, _ in listed]
    images = encoded if shape == "bytes" else [{"bytes": image, "path": None} for image in encoded]
    table = pa.table({"image": images, "label": [BIRDS.index(label) for _, label in listed]})
    pq.write_table(table, tmp_path / "list.parquet", row_group_size=7)
    data.import_(tmp_path / "list.parquet", ["birds"], folder=tmp_path / "a")
    data.import_(write_csv(tmp_path / "list.csv", listed), ["birds"], folder=tmp_path / "b")
    assert data.content_hash("birds", tmp_path / "a") == data.content_hash("birds", tmp_path / "b")


@pytest.mark.parametrize(
    ("row", "what"),
    [
        (("/images/owl/000.jpg", "owl"), "is an absolute path"),
        (("images/../../owl/000.jpg", "owl"), "leads out of its folder"),
        (("images/nowhere.jpg", "owl"), "'images/nowhere.jpg' is missing in"),
        (("images/owl/000.jpg", ""), "no label"),
        (("images/owl/000.jpg",), "not as many fields"),
        (("images/owl/000.jpg", "owl", "and more"), "not as many fields"),
    ],
)
def test_a_bad_row_is_named_by_file_and_line(tmp_path, listed, row, what):
    rows = [*listed[:3], row, *[other for other in listed[3:] if other[0] != row[0]]]
    refused(write_csv(tmp_path / "list.csv", rows), rf"list\.csv line 5: .*{what}")


def test_an_unknown_split_and_one_that_is_not_always_given_are_refused(tmp_path, listed):
    header = ("path", "label", "split")
    rows = [(*row, "train") for row in listed]
    rows[2] = (*listed[2], "holdout")
    refused(
        write_csv(tmp_path / "list.csv", rows, header), r"line 4: 'holdout' in column 'split' is no split; known: train"
    )
    rows[2] = (*listed[2], "")
    refused(write_csv(tmp_path / "list.csv", rows, header), r"line 4 has no split, others have")


def test_lists_without_the_columns_or_without_rows_are_refused(tmp_path, listed):
    refused(write_csv(tmp_path / "a.csv", listed, ("name", "kind")), "needs the columns path and label; it has: name")
    refused(write_csv(tmp_path / "b.csv", []), "lists no images")
    (tmp_path / "c.csv").write_text("")
    refused(tmp_path / "c.csv", "it has: none")
    (tmp_path / "d.csv").write_bytes(b"\x00\xff")
    refused(tmp_path / "d.csv", "is not a text file")
    (tmp_path / "e.parquet").write_bytes(b"no")
    refused(tmp_path / "e.parquet", "cannot be read")
    (tmp_path / "f.json").write_text("x")
    refused(tmp_path / "f.json", r"is not a zip, a tar, nor a list \(\.csv, ")
    refused(tmp_path / "f.json", "is a file, which 'images' cannot be", kind="images")
    refused(tmp_path / "f.json", "unknown kind of source 'zip'", kind="zip")
    (tmp_path / "g.XLSX").write_text("x")
    refused(tmp_path / "g.XLSX", "is a spreadsheet; save it as CSV")


# Labels


def named(tmp_path, listed, labels):
    """What becomes of the labels of the three birds in a CSV."""
    rows = [(path, labels[BIRDS.index(label)]) for path, label in listed]
    (source,) = sources(write_csv(tmp_path / "list.csv", rows), ["birds"])
    return source


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (("001", "01", "1"), ("1", "01", "001")),
        ((2010, 30, 1990), ("30", "1990", "2010")),
        ((2, 10, 1), ("1", "2", "10")),
        ((0.0, 2.0, 10.0), ("0", "2", "10")),
        ((0.5, 2.0, 1.25), ("0.5", "1.25", "2.0")),
        ((-1, 0, 1), ("-1", "0", "1")),
        (("\u0661", "\u0660", "\u0662"), ("\u0660", "\u0661", "\u0662")),
        (("m\u00b2", "\u00b2", "x"), ("m\u00b2", "x", "\u00b2")),
        ((True, False, False), ("False", "True")),
        (("None", "b", "c"), ("None", "b", "c")),
    ],
)
def test_labels_keep_their_text_and_make_no_other_classes(tmp_path, listed, labels, names):
    source = named(tmp_path, listed, labels)
    assert source.task.class_names == names
    assert source.task.classes == len(names)
    assert sum(source.class_counts) == 30


@pytest.mark.parametrize("label", ["nan", "NaN", "", " ", "null", "<NA>", "N/A"])
def test_a_missing_label_is_refused_however_it_is_written(tmp_path, listed, label):
    rows = [*listed[:3], (listed[3][0], label), *listed[4:]]
    refused(write_csv(tmp_path / "list.csv", rows), r"list\.csv line 5: no label.*; give it one, or leave the row out")


def test_missing_labels_in_parquet_are_refused(tmp_path, listed):
    for kind, missing in ((pa.int64(), None), (pa.float64(), float("nan")), (pa.string(), "")):
        labels = pa.array([missing, *[1] * 15, *[2] * 14] if kind != pa.string() else [missing, *"a" * 29], kind)
        pq.write_table(pa.table({"path": [path for path, _ in listed], "label": labels}), tmp_path / "l.parquet")
        refused(tmp_path / "l.parquet", r"l\.parquet row 0: no label")


@pytest.mark.parametrize("label", [[1, 2], {"a": 1}])
def test_labels_that_are_several_are_refused(tmp_path, listed, label):
    table = pa.table({"path": [path for path, _ in listed], "label": [label] * 30})
    pq.write_table(table, tmp_path / "l.parquet")
    refused(tmp_path / "l.parquet", "row 0: the label is .*; a picture has one label here")


def test_a_column_of_measurements_is_not_taken_for_classes(tmp_path, listed):
    rows = [(path, i / 7) for i, (path, _) in enumerate(listed)]
    refused(
        write_csv(tmp_path / "list.csv", rows), r"each of the 30 pictures of .* has a label of its own.*--label-col"
    )


# Shapes of text


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
@pytest.mark.parametrize("name", ["list.csv", "LIST.CSV", "list.txt", "list.tsv"])
def test_any_usual_delimiter_is_found_out(tmp_path, listed, delimiter, name):
    text = "\n".join(delimiter.join(row) for row in [("path", "label"), *listed])
    (tmp_path / name).write_text(text)
    assert sources(tmp_path / name, ["birds"])[0].task.class_names == BIRDS


@pytest.mark.parametrize(("encoding", "says"), [("utf-8-sig", 0), ("utf-16", 0), ("utf-16-be-bom", 0), ("cp1252", 1)])
def test_tables_that_excel_and_windows_wrote_are_read(tmp_path, listed, encoding, says):
    text = "\r\n".join(";".join((path, f"{label}\u00e9")) for path, label in [("path", "label"), *listed])
    text = "sep=;\r\n" + text.replace("label\u00e9", "label")
    bom = encoding == "utf-16-be-bom"
    (tmp_path / "l.csv").write_bytes(b"\xfe\xff" + text.encode("utf-16-be") if bom else text.encode(encoding))
    (source,) = sources(tmp_path / "l.csv", ["birds"])
    assert source.task.class_names == tuple(f"{name}\u00e9" for name in BIRDS)
    assert len(source.notes) == says
    assert all("was read as Windows-1252" in note for note in source.notes)


def test_backslashes_padded_cells_index_columns_and_empty_rows_do_no_harm(tmp_path, listed):
    rows = [(i, path.replace("/", "\\"), f" {label} ") for i, (path, label) in enumerate(listed)]
    rows.insert(4, ("", "", ""))
    path = write_csv(tmp_path / "list.csv", rows, ("", " Path", "label "))
    assert sources(path, ["birds"])[0].task.class_names == BIRDS


def test_names_in_another_form_of_unicode_than_the_files_are_found(tmp_path, listed):
    composed, apart = (unicodedata.normalize(form, "b\u00fcho") for form in ("NFC", "NFD"))
    (tmp_path / "images/owl").rename(tmp_path / "images" / apart)
    rows = [(path.replace("owl", composed), label) for path, label in listed]
    assert sum(sources(write_csv(tmp_path / "list.csv", rows), ["birds"])[0].sizes.values()) == 30


def test_a_quote_that_nobody_closed_takes_no_lines_with_it(tmp_path, listed):
    path = write_csv(tmp_path / "l.csv", listed)
    path.write_text(path.read_text().replace("owl/000.jpg,owl", 'owl/000.jpg,"owl'))
    refused(path, "line 12 is not one of a list .*; is a quote left open in it")


def test_paths_that_lack_a_folder_are_told_which(tmp_path, listed):
    rows = [(path.removeprefix("images/owl/"), label) for path, label in listed if label == "owl"]
    refused(write_csv(tmp_path / "l.csv", rows), "line 2: '000.jpg' is missing in .*; it is in images/")


def test_a_list_without_names_of_columns_says_what_to_put_there(tmp_path, listed):
    refused(
        write_csv(tmp_path / "a.csv", listed[1:], listed[0]), "it begins with 'images/crow/000.jpg,crow'; put a line"
    )


@pytest.mark.parametrize("separator", [" ", "\t", ",", ";"])
def test_a_bare_list_of_paths_and_labels(tmp_path, listed, separator):
    (tmp_path / "images/owl/000.jpg").rename(tmp_path / "images/owl/a b.jpg")
    lines = [separator.join((path.replace("owl/000", "owl/a b"), label)) for path, label in listed]
    (tmp_path / "list.txt").write_text("\n".join(lines))
    assert sources(tmp_path / "list.txt", ["birds"])[0].task.class_names == BIRDS
    (tmp_path / "list.txt").write_text("\n".join([separator.join(("path", "label")), *lines]))
    assert sources(tmp_path / "list.txt", ["birds"])[0].task.class_names == BIRDS
    (tmp_path / "list.txt").write_text("\n".join([*lines, "alone.jpg"]))
    refused(tmp_path / "list.txt", r"line 31 is not a path and a label: 'alone\.jpg'|line 31.*no label")


def test_a_bare_list_of_names_without_suffix(tmp_path, listed):
    (tmp_path / "list.txt").write_text("\n".join(f"{path.removesuffix('.jpg')} {label}" for path, label in listed))
    assert sum(sources(tmp_path / "list.txt", ["birds"])[0].sizes.values()) == 30


def test_line_breaks_in_cells_do_no_harm(tmp_path, listed):
    rows = [(path, label.replace("owl", "o\nwl")) for path, label in listed]
    assert sources(write_csv(tmp_path / "l.csv", rows), ["birds"])[0].task.class_names == ("crow", "o wl", "wren")
    refused(write_csv(tmp_path / "l.csv", [("a\nb", "owl"), *rows]), "line 3: 'a b' is missing in")


def test_a_table_without_rows_is_refused(tmp_path):
    pq.write_table(
        pa.table({"path": pa.array([], pa.string()), "label": pa.array([], pa.int64())}), tmp_path / "l.parquet"
    )
    refused(tmp_path / "l.parquet", "lists no images")


def test_json_lines(tmp_path, listed):
    lines = [json.dumps({"file_name": path, "label": label}) for path, label in listed]
    (tmp_path / "metadata.jsonl").write_text("\n".join(lines))
    assert sources(tmp_path / "metadata.jsonl", ["birds"])[0].task.class_names == BIRDS
    for wrong in ("{", "3"):
        (tmp_path / "metadata.jsonl").write_text("\n".join([*lines, wrong]))
        refused(tmp_path / "metadata.jsonl", "line 31 is not")


# Columns


@pytest.mark.parametrize(
    "header", [("filepath", "category"), ("img", "fine_label"), ("Image Path", "Class-Name"), ("image_id", "target")]
)
def test_other_names_of_columns_are_known(tmp_path, listed, header):
    assert sources(write_csv(tmp_path / "l.csv", listed, header), ["birds"])[0].task.class_names == BIRDS


@pytest.mark.parametrize("header", ["set", "subset", "Split", "fold", "partition"])
def test_other_names_of_the_column_of_splits_are_known(tmp_path, listed, header):
    rows = [(*row, ["Train", "val", "TEST"][i % 3]) for i, row in enumerate(listed)]
    (source,) = sources(write_csv(tmp_path / "l.csv", rows, ("path", "label", header)), ["birds"])
    assert source.sizes == {"train": 10, "val": 10, "test": 10}


def test_a_column_of_folds_that_are_no_splits_is_asked_about(tmp_path, listed):
    rows = [(*row, i % 5) for i, row in enumerate(listed)]
    path = write_csv(tmp_path / "l.csv", rows, ("path", "label", "fold"))
    refused(path, r"'0' in column 'fold' is no split; known: .*\(--split-column names another column, or none\)")
    assert sources(path, ["birds"], split_column="none")[0].sizes == {"train": 19, "val": 5, "test": 6}


def test_two_columns_that_may_be_meant_are_asked_about(tmp_path, listed):
    rows = [(*row, "bird") for row in listed]
    path = write_csv(tmp_path / "l.csv", rows, ("path", "fine_label", "coarse_label"))
    refused(
        path, "has the columns 'fine_label', 'coarse_label', any of which may be meant; choose one with --label-col"
    )
    assert sources(path, ["birds"], label_column="fine_label")[0].task.class_names == BIRDS


def test_a_column_that_is_chosen_and_not_there_is_named_with_the_nearest(tmp_path, listed):
    path = write_csv(tmp_path / "l.csv", listed, ("where", "species"))
    assert sources(path, ["birds"], path_column="where", label_column="species")[0].task.class_names == BIRDS
    for option in ("path_column", "label_column", "split_column", "group_column"):
        refused(path, "unknown column 'specis'; did you mean 'species'\\? known: where, species", **{option: "specis"})
    refused(path, "'where' cannot be two things at once", path_column="where", label_column="where")


def test_a_column_per_class_is_read(tmp_path, listed):
    rows = [(path, *(f"{float(name == label)}" for name in BIRDS)) for path, label in listed]
    path = write_csv(tmp_path / "l.csv", rows, ("image", *BIRDS))
    assert sources(path, ["birds"])[0].class_counts == (10, 10, 10)
    rows[2] = (rows[2][0], 1, 1, 0)
    refused(
        write_csv(path, rows, ("image", *BIRDS)), "line 4: 2 of the columns crow, owl, wren are 1; a picture has one"
    )


def test_a_column_twice_is_refused(tmp_path, listed):
    rows = [(*row, row[1]) for row in listed]
    refused(write_csv(tmp_path / "l.csv", rows, ("path", "label", "label")), "several columns called 'label'")


# Paths


def test_paths_out_of_the_folder_are_taken_when_that_is_allowed(tmp_path, listed):
    (tmp_path / "lists").mkdir()
    up = write_csv(tmp_path / "lists/up.csv", [(f"../{path}", label) for path, label in listed])
    absolute = write_csv(tmp_path / "abs.csv", [(tmp_path / path, label) for path, label in listed])
    for path in (up, absolute):
        refused(path, "--allow-outside takes such paths")
        assert sum(sources(path, ["birds"], allow_outside=True)[0].sizes.values()) == 30


def test_names_without_suffix_are_completed_where_one_file_fits(tmp_path, listed):
    rows = [(path.removesuffix(".jpg"), label) for path, label in listed]
    (tmp_path / "images/owl/000.txt").write_text("boxes")
    path = write_csv(tmp_path / "l.csv", rows)
    assert "30 names without suffix were completed" in sources(path, ["birds"])[0].notes[0]
    (tmp_path / "images/owl/000.png").write_bytes(b"another")
    refused(path, "line 12: '000' may be 000.jpg or 000.png in .*owl; add the suffix")


def test_rows_that_repeat_others_are_left_out_and_told(tmp_path, listed):
    (source,) = sources(write_csv(tmp_path / "l.csv", [*listed, (f"./{listed[0][0]}", BIRDS[0])]), ["birds"])
    assert sum(source.sizes.values()) == 30
    assert len(source.left_out) == 1
    assert source.left_out[0].startswith("1 rows that repeat an earlier one, such as ")


def test_a_path_in_two_splits_is_refused(tmp_path, listed):
    rows = [(*row, ["train", "val", "test"][i % 3]) for i, row in enumerate(listed)]
    path = write_csv(tmp_path / "l.csv", [*rows, (*listed[0], "test")], ("path", "label", "split"))
    refused(path, r"line 32: 'images/crow/000\.jpg' is listed already, in .*line 2, for train")


# Parquet and Arrow


STRINGS = {
    "large": pa.large_string(),
    "view": pa.string_view(),
    "dictionary": pa.dictionary(pa.int32(), pa.string()),
    "large dictionary": pa.dictionary(pa.int32(), pa.large_string()),
}


@pytest.mark.parametrize("kind", STRINGS)
@pytest.mark.parametrize("name", ["l.parquet", "L.PARQUET", "l.arrow", "l.feather"])
def test_any_kind_of_string_is_a_string(tmp_path, listed, kind, name):
    cells = [pa.array([row[i] for row in listed]).cast(STRINGS[kind]) for i in (0, 1)]
    table = pa.table(cells, names=["path", "label"])
    if name.lower().endswith("parquet"):
        pq.write_table(table, tmp_path / name)
    else:
        with pa.ipc.new_file(tmp_path / name, table.schema) as writer:
            writer.write_table(table)
    assert sources(tmp_path / name, ["birds"])[0].task.class_names == BIRDS


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.binary_view()])
def test_any_kind_of_bytes_is_an_image(tmp_path, listed, kind):
    images = pa.array([(tmp_path / path).read_bytes() for path, _ in listed], kind)
    pq.write_table(pa.table({"image": images, "label": [label for _, label in listed]}), tmp_path / "l.parquet")
    assert data.import_(tmp_path / "l.parquet", ["birds"])[0].images == 30


def test_what_pandas_writes_is_read(tmp_path, listed):
    frame = pd.DataFrame(listed, columns=["path", "label"]).iloc[::-1]
    frame["label"] = frame["label"].astype("category")
    frame.to_parquet(tmp_path / "l.parquet")
    frame.to_csv(tmp_path / "l.csv")
    for name in ("l.parquet", "l.csv"):
        assert sources(tmp_path / name, ["birds"])[0].task.class_names == BIRDS


def test_images_that_are_paths_are_read_from_there(tmp_path, listed):
    images = [{"bytes": None, "path": path} for path, _ in listed]
    pq.write_table(pa.table({"image": images, "label": [[label] for _, label in listed]}), tmp_path / "l.parquet")
    assert data.import_(tmp_path / "l.parquet", ["birds"])[0].task.class_names == BIRDS


def test_a_row_of_parquet_without_a_path_is_refused(tmp_path, listed):
    for paths in ([None, *(path for path, _ in listed[1:])], [{"path": None}, *({"path": p} for p, _ in listed[1:])]):
        pq.write_table(pa.table({"image": paths, "label": [label for _, label in listed]}), tmp_path / "l.parquet")
        refused(tmp_path / "l.parquet", r"l\.parquet row 0: no path")


def test_a_column_that_has_no_images_is_refused(tmp_path):
    pq.write_table(pa.table({"image": [[0, 1]] * 4, "label": [0, 1, 0, 1]}), tmp_path / "l.parquet")
    refused(tmp_path / "l.parquet", "the column image holds list.*, which is neither paths nor encoded images")


# Anything at all


CELLS = [
    *("images/owl/000.jpg", "images/owl/001", "../x", "/etc/hosts", "C:\\x.png", "", "nan", "1", "1.0", "-1", "train"),
    *(
        'a"b',
        "\x00",
        "\u00e9",
        "a\nb",
        "9" * 5000,
        "\u0130",
        "\u00b2",
        " ",
        ".",
        "x" * 300,
        "images/owl/002.jpg\0",
        "~",
    ),
]
HEADS = ["path", "label", "image", "Split", "fold", "patient", "", "Unnamed: 0", "x", "category", "none", "label "]
OPTIONS = {"path_column": ["path", "x"], "label_column": ["x"], "split_column": ["none"], "group_column": ["patient"]}


def anything(folder, rows, chance):
    """A table of random columns and cells, most of them wrong, in a file of any kind."""
    heads = ["path", "label", *chance.sample(HEADS, chance.randint(0, 2))]
    heads = heads if chance.random() < 0.8 else chance.choices(HEADS, k=chance.randint(1, 3))
    table = [[*row, *chance.choices(CELLS, k=len(heads))][: len(heads)] for row in chance.sample(rows, 12)]
    for _ in range(chance.randint(0, 2)):
        chance.choice(table)[chance.randrange(len(heads))] = chance.choice(CELLS)
    path = folder / f"any{chance.choice(['.csv', '.TSV', '.txt', '.jsonl', '.parquet'])}"
    if path.suffix == ".parquet":
        pq.write_table(pa.table({name: [row[i] for row in table] for i, name in enumerate(heads)}), path)
    elif path.suffix == ".jsonl":
        path.write_text("\n".join(json.dumps(dict(zip(heads, row, strict=True))) for row in table))
    else:
        delimiter = chance.choice(",;\t ")
        raw = bytearray("\n".join(delimiter.join(row) for row in [heads, *table]), chance.choice(["utf-8", "utf-16"]))
        if chance.random() < 0.2:
            raw[chance.randrange(len(raw))] = chance.randrange(256)
        path.write_bytes(raw)
    return path


@pytest.mark.parametrize("seed", range(5))
def test_any_table_is_a_task_or_one_sentence(tmp_path, listed, seed):
    chance, refusals = random.Random(seed), []
    for _ in range(100):
        path = anything(tmp_path, listed, chance)
        options = {name: chance.choice(values) for name, values in OPTIONS.items() if chance.random() < 0.1}
        try:
            (source,) = sources(path, ["birds"], allow_outside=chance.random() < 0.3, **options)
        except BadInput as refusal:
            refusals.append(str(refusal))
            continue
        assert min(source.sizes.values()) > 0
        assert all(name.encode() for name in source.task.class_names)
        assert min(source.class_counts) > 0
    assert 5 < len(refusals) < 95
    assert not any("\n" in sentence for sentence in refusals)
