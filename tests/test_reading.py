"""Text, YAML and JSON of the user's: what is taken, and what is refused with a reason."""

import time

import pytest

from idat_tune import reading
from idat_tune.errors import BadInput, shown


def refused(read, *arguments):
    with pytest.raises(BadInput) as caught:
        read(*arguments)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("-1.5E3", -1500.0),
        ("010", 10),
        ("1_000", 1000),
        (".inf", float("inf")),
        ("1:30", "1:30"),
        ("2020-01-01", "2020-01-01"),
        ("2020-13-45", "2020-13-45"),
        ("=", "="),
        ("9" * 30, "9" * 30),
        ("yes", True),
        ("~", None),
        ("", None),
        ("'3'", "3"),
    ],
)
def test_numbers_are_those_of_yaml_12_and_dates_are_text(text, value):
    assert reading.yaml_value(text) == value
    assert type(reading.yaml_value(text)) is type(value)


@pytest.mark.parametrize(
    "text", ["[a]", "{}", "[" * 3000, "*", "a: b", "!!binary aGk=", "!!python/object:os.x {}", "&a"]
)
def test_where_one_word_is_wanted_anything_else_is_text(text):
    assert reading.scalar(text) in (text, None)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: 1\nb: 2\na: 3", "'a' stands twice, in lines 1 and 3; keep one"),
        ("x: {a: 1, a: 1}", "'a' stands twice, in line 1"),
        ("[" * 5000, "nested more than 40 deep"),
        ("&a [*a]", "refers to itself"),
        ("a: [", "not valid YAML: line 1, column"),
        ("a: !!int x", "not valid YAML"),
        ("? [a]\n: 1", "not valid YAML: line 1"),
        ("!!python/object/apply:os.system [ls]", "not valid YAML: line 1"),
        ("a: \x07", "not valid YAML"),
        ("x" * 200_001, "too long"),
    ],
)
def test_faulty_yaml_is_refused_with_its_place(text, reason):
    assert reason in refused(reading.yaml_value, text)


def test_a_few_lines_that_stand_for_billions_are_refused_at_once():
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    bomb += "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12))
    began = time.monotonic()
    assert "by its aliases" in refused(reading.yaml_value, bomb)
    assert time.monotonic() - began < 1


def test_anchors_and_merges_that_people_use_are_understood():
    text = "base: &base {a: 1, b: 2}\nmine: {<<: *base, b: 3}\nagain: *base"
    assert reading.yaml_value(text)["mine"] == {"a": 1, "b": 3}


@pytest.mark.parametrize(
    ("text", "reason"),
    [('{"a": 1, "a": 2}', "'a' stands there twice"), ("[" * 100_000, "too deep"), ("{", "not valid JSON")],
)
def test_faulty_json_is_refused(text, reason):
    assert reason in refused(reading.json_value, text)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_text_is_read_in_the_encodings_that_editors_write(tmp_path, encoding):
    path = tmp_path / "a.yaml"
    path.write_bytes("größe: 3\r\n".encode(encoding))
    assert reading.yaml_value(reading.text(path, "file")) == {"größe": 3}


def test_what_is_no_text_file_is_refused_by_its_name(tmp_path):
    for name, content, reason in (
        ("binary", bytes(range(256)), "is not text"),
        ("nul", b"a: \0", "is not text"),
        ("latin", "größe".encode("latin-1"), "is not text"),
        ("long", b"x" * 1_000_000, "is too long"),
    ):
        (tmp_path / name).write_bytes(content)
        assert reason in refused(reading.text, tmp_path / name, "file")
    assert "cannot be read: it is a folder" in refused(reading.text, tmp_path, "file")
    assert "No such file" in refused(reading.text, tmp_path / "none", "file")
    assert "File name too long" in refused(reading.text, tmp_path / ("x" * 300), "file")
    assert "no file has such a name" in refused(reading.text, tmp_path / "a\0b", "file")


def test_what_is_shown_of_a_value_stays_on_a_short_plain_line():
    assert shown("a\n\x1b[31mb\udc80") == r"a\n\x1b[31mb\udc80"
    assert shown("x" * 100) == "x" * 57 + "..."
    assert shown(10**5000) == "a very long number"
    assert shown("größe 中") == "größe 中"
