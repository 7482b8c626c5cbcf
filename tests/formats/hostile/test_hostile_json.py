"""Hostile JSON files."""

import pytest

from bigbird_port.files.json_object import read_json_object
from tests.formats.hostile.hostile import refused

JSON = {
    "empty": (b"", "found nothing in its 0 bytes: fetch it again"),
    "blank": (b" \n", "found nothing in its 2 bytes"),
    "cut off": (b'{"hidden_size": 8,', "it ends too soon, after 18 bytes: truncated: fetch it again"),
    "cut off in a word": (b'{"hidden_size": 8, "hidd', "it ends too soon, after 24 bytes: truncated"),
    "no JSON": (b"{hidden}", "cannot be read: Expecting property name"),
    "list": (b"[]", "expected a JSON object, found list"),
    "key twice": (b'{"a": 1, "a": 2}', "the key 'a' is there twice"),
    "inner key twice": (b'{"a": {"b": 1, "b": 1}}', "the key 'b' is there twice"),
    "deep": (b'{"a":' * 100000, "nested too deeply"),
    "not UTF-8": (b'{"a": "\xff"}', "utf-8"),
    "UTF-16": ('{"a": 1}'.encode("utf-16"), "utf-8"),
    "long number": (b'{"a": ' + b"9" * 5000 + b"}", "cannot be read"),
    "many values": (b'{"a":[' + b"1," * 200_001 + b"1]}", "more than 200000 values"),
}


@pytest.mark.parametrize("case", JSON)
def test_json(tmp_path, case):
    data, message = JSON[case]
    (tmp_path / "config.json").write_bytes(data)
    refused(read_json_object, tmp_path / "config.json", message)


def test_json_of_many_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr("bigbird_port.files.json_object.MAX_JSON_BYTES", 10)
    (tmp_path / "config.json").write_text('{"a": "0123456789"}')
    refused(read_json_object, tmp_path / "config.json", "more than 10 bytes")
