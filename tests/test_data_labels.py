"""What labels say, and names that are hard to tell apart."""

import unicodedata

import pytest

from idat_tune.data.labels import classes, is_missing, tidy
from idat_tune.errors import BadInput

NFC, NFD = (unicodedata.normalize(form, "Rötling") for form in ("NFC", "NFD"))


def of(*names, splits=None):
    return classes([*names, *names], splits or [None] * 2 * len(names), (), "birds")


def test_forms_of_unicode_and_outer_spaces_make_no_classes_and_are_told():
    found = of(NFC, NFD, "cep", "cep ")
    assert found.names == (NFC, "cep")
    assert found.labels == [0, 0, 1, 1] * 2
    assert [note.endswith("taken as one class") for note in found.notes] == [True, True]


@pytest.mark.parametrize(
    ("names", "what"),
    [
        (("cat", "Cat"), "upper and lower case"),
        (("black cat", "black  cat"), "spaces"),
        (("black cat", "black_cat"), "spaces"),
        (("m2", "m²"), "the form of letters"),
        (("001", "1"), "how the number is written"),
        (("1.0", "1", "x"), "how the number is written"),
    ],
)
def test_names_that_look_alike_stay_classes_of_their_own_and_are_told(names, what):
    found = of(*names, "dog")
    assert len(found.names) == len({*names, "dog"})
    assert len(found.notes) == 1
    assert found.notes[0].endswith(f"though they differ only in {what}")


def test_numbers_that_are_near_are_no_look_alikes():
    assert not of("1000001", "1000002", "12345678901234567", "12345678901234568").notes


def test_a_class_that_splits_write_differently_is_refused():
    with pytest.raises(
        BadInput, match="train has the class 'Cat' and test 'cat', which differ only in upper and lower"
    ):
        classes(["Cat", "dog"] * 3 + ["cat", "dog"] * 3, ["train"] * 6 + ["test"] * 6, (), "birds")


def test_classes_with_numbers_for_names_stand_in_the_order_of_numbers():
    assert of("10", "9", "-1", "1.5", "x").names == ("-1", "1.5", "9", "10", "x")


def test_a_column_with_few_pictures_to_a_label_is_asked_about():
    found = classes([*"abcdefg", "a"], [None] * 8, (), "birds")
    assert found.notes == ("most of the 7 classes have one picture only; are these the labels that are meant?",)


def test_a_column_with_one_rare_label_is_not_asked_about():
    assert not classes([*"aabbccd"], [None] * 7, (), "birds").notes


def test_minus_one_among_others_is_asked_about():
    assert any("if it means that there is no label" in note for note in of("-1", "0", "1").notes)
    assert not of("-1", "1").notes


def test_names_of_bytes_that_are_no_text_stay_apart_and_can_be_written():
    names = {tidy(name.decode("utf-8", "surrogateescape")) for name in (b"caf\xe9", b"caf\xe8", b"cafe")}
    assert len(names) == 3
    assert all(name.encode() for name in names)


@pytest.mark.parametrize("name", [" ", "\u200b", "\x00\n"])
def test_names_that_cannot_be_seen_are_refused(name):
    with pytest.raises(BadInput, match="which nobody can read"):
        of(name, "cep")
    assert is_missing(name)


def test_numbers_too_long_to_count_with_are_names():
    assert set(of("9" * 5000, "1" * 5000).names) == {"9" * 5000, "1" * 5000}
