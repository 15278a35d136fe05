"""Answers for people's files: folders, patterns, broken ones among good ones, every format of the output."""

import csv
import io
import json
import sys

import numpy as np
import pytest
from conftest import glyphs, noise
from PIL import Image
from typer.testing import CliRunner

import idat_tune
from idat_tune import export, predict, run
from idat_tune.cli import main
from idat_tune.cli.commands import app
from idat_tune.errors import BadInput


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    training = run.run(glyphs(teacher="none", epochs=1), noise())
    list(training)
    folder = tmp_path_factory.mktemp("export") / "best"
    export.save(folder, training.config, training.student.trained_state(), {})
    return folder


@pytest.fixture
def pictures(tmp_path):
    """Five readable pictures and what lies between them."""
    random = np.random.default_rng(0)
    place = tmp_path / "pictures"
    for name in ("a.png", "b.JPG", "sub/c.bmp", "sub/d.webp", "sub/deeper/e.tif"):
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (20, 30), dtype=np.uint8)).save(path)
    (place / "notes.txt").write_text("mine")
    (place / ".thumbs").mkdir()
    (place / ".thumbs/a.png").write_bytes((place / "a.png").read_bytes())
    return place


def names(files, place):
    return [str(file.relative_to(place)) for file in files]


def called(*arguments):
    return CliRunner().invoke(app, ["predict", *map(str, arguments)])


def test_a_folder_means_its_visible_images_and_those_below(pictures):
    found = predict.image_files([pictures])
    assert names(found, pictures) == ["a.png", "b.JPG", "sub/c.bmp", "sub/d.webp", "sub/deeper/e.tif"]


def test_a_folder_on_a_share_means_what_an_import_of_it_takes(pictures):
    thumb = pictures / "@eaDir/a.png/SYNOPHOTO_THUMB_M.jpg"
    thumb.parent.mkdir(parents=True)
    thumb.write_bytes((pictures / "a.png").read_bytes())
    (pictures / "a.png").rename(pictures / "photo")
    found = predict.image_files([pictures])
    assert names(found, pictures) == ["b.JPG", "photo", "sub/c.bmp", "sub/d.webp", "sub/deeper/e.tif"]


def test_a_pattern_that_no_shell_expanded_is_expanded_and_each_file_comes_once(pictures):
    found = predict.image_files([pictures / "sub/c.bmp", pictures / "sub/*.*", pictures / "**/e.tif"])
    assert names(found, pictures) == ["sub/c.bmp", "sub/d.webp", "sub/deeper/e.tif"]


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(pictures):
    odd = (pictures / "a.png").rename(pictures / "[1].png")
    assert predict.image_files([odd]) == [odd]


def test_nothing_found_is_said(pictures, tmp_path):
    with pytest.raises(BadInput, match="no file matches"):
        predict.image_files([pictures / "*.gif"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match=r"no images in .*; known are \.jpg"):
        predict.image_files([tmp_path / "empty"])


def test_answers_are_those_of_the_student_whatever_the_batch(folder, pictures, monkeypatch):
    student = idat_tune.load(folder)
    files = predict.image_files([pictures])
    monkeypatch.setattr(predict, "BATCH", 2)
    found = list(predict.answers(student, files))
    for file, answer in zip(files, found, strict=True):
        label, probability = student.predict([Image.open(file)])[0]
        assert (answer.image, answer.top[0][0]) == (str(file), label)
        assert answer.top[0][1] == pytest.approx(probability, abs=1e-6)


def test_top_labels_are_ordered_and_no_more_than_there_are_classes(folder, pictures):
    student = idat_tune.load(folder)
    (answer,) = predict.answers(student, [pictures / "a.png"], top=99)
    labels, probabilities = zip(*answer.top, strict=True)
    assert sorted(labels) == sorted(student.labels)
    assert list(probabilities) == sorted(probabilities, reverse=True)
    assert sum(probabilities) == pytest.approx(1, abs=1e-5)


def spoil(pictures):
    (pictures / "a2.png").write_text("no image")
    (pictures / "z.jpg").write_bytes(b"")
    Image.new("RGB", (9, 9)).save(pictures / "postscript.jpg", "EPS")


def test_a_bad_image_is_named_and_skipped_and_the_rest_is_answered(folder, pictures):
    spoil(pictures)
    done = called(folder, pictures)
    assert done.exit_code == 1
    assert len(done.stdout.splitlines()) == 5
    skipped = done.stderr.splitlines()
    assert [line.split()[1].rsplit("/", 1)[1] for line in skipped] == ["a2.png", "postscript.jpg", "z.jpg"]
    assert all(line.startswith("skipped: ") for line in skipped)


def test_json_has_a_row_for_every_image_and_says_which_could_not_be_read(folder, pictures):
    spoil(pictures)
    done = called(folder, pictures, "--json", "--top", 2)
    rows = json.loads(done.stdout)
    assert len(rows) == 8
    assert {tuple(row) for row in rows} == {("image", "label", "probability", "top", "error")}
    assert [row["image"].rsplit("/", 1)[1] for row in rows if row["error"]] == ["a2.png", "postscript.jpg", "z.jpg"]
    good = [row for row in rows if row["error"] is None]
    assert all(row["top"][0] == {"label": row["label"], "probability": row["probability"]} for row in good)
    assert all(len(row["top"]) == 2 for row in good)


def test_csv_is_a_table_that_any_reader_takes(folder, pictures):
    spoil(pictures)
    (pictures / "a.png").rename(pictures / 'com,ma "quoted".png')
    done = called(folder, pictures, "--csv", "--top", 2)
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert list(rows[0]) == ["image", "label", "probability", "label_2", "probability_2", "error"]
    assert 'com,ma "quoted".png' in {row["image"].rsplit("/", 1)[1] for row in rows}
    assert sum(bool(row["error"]) for row in rows) == 3
    assert all(float(row["probability"]) >= float(row["probability_2"]) for row in rows if not row["error"])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nothing.png"], "nothing.png cannot be read (No such file or directory)"),
        (["/dev/zero"], "/dev/zero is not a file"),
        (["-"], "- cannot be read"),
        (["nothing.png", "neither.png"], "none of 2 images can be read; nothing.png cannot be read"),
        (["x.png", "--top", "0"], "--top cannot be 0"),
        (["x.png", "--csv", "--json"], "--csv and --json are two formats"),
    ],
)
def test_what_cannot_be_answered_is_one_sentence(folder, arguments, sentence, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["idat-tune", "predict", str(folder), *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr()
    assert (ended.value.code, said.out) == (2, "")
    assert said.err.startswith("error: ")
    assert sentence in said.err
    assert len(said.err.splitlines()) == 1


def test_names_that_would_break_a_line_or_colour_the_terminal_are_written_out(folder, pictures):
    (pictures / "a.png").rename(pictures / "two\nlines\x1b[31m[red].png")
    done = called(folder, pictures / "two*.png")
    assert len(done.stdout.splitlines()) == 1
    assert r"two\nlines\x1b[31m[red].png" in done.stdout


@pytest.mark.parametrize("teacher", ["none", "glyph_small"])
def test_answers_look_at_the_class_token_alone_in_the_last_block_and_are_the_same(teacher, pictures, tmp_path):
    training = run.run(glyphs(teacher=teacher, epochs=1), noise())
    list(training)
    states = [model.trained_state() for model in (training.student, training.teacher) if model]
    export.save(tmp_path / "x", training.config, states[0], {}, teacher=states[1] if len(states) > 1 else None)
    student = idat_tune.load(tmp_path / "x")
    model = student.model.student if isinstance(student.model, export.Pair) else student.model
    tokens = []
    model.backbone.norm.register_forward_hook(lambda module, given, output: tokens.append(given[0].shape[1]))
    (answer,) = predict.answers(student, [pictures / "a.png"])
    assert tokens == [1]
    ((label, share),) = student.predict([pictures / "a.png"])
    assert answer.top[0] == (label, pytest.approx(share, abs=1e-6))
