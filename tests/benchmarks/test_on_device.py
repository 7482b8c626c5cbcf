"""The one call for a device: parts that fail, hang or lack packages stop no other, and what was found is kept."""

import json
import random
import signal
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path

import google_crc32c
import pytest

from benchmarks.on_device import __main__ as program
from benchmarks.on_device import running
from benchmarks.on_device.page import page
from benchmarks.on_device.parts import PARTS, Part
from benchmarks.on_device.record import passed
from benchmarks.on_device.stand_ins import google_crc32c as stand_in


def two_findings(device, small):
    yield {"what": "first", "passed": True, "value": f"on {device}", "number": float("nan")}
    yield {"what": "second <b>", "passed": None, "value": 2, "measured": {"launches": "5"}}


def one_then_hangs(device, small):
    yield {"what": "before", "passed": True, "value": "kept"}
    time.sleep(600)


def one_then_raises(device, small):
    yield {"what": "before", "passed": True, "value": "kept"}
    raise RuntimeError("out of memory")


def nothing(device, small):
    return iter(())


def not_agreed(device, small):
    yield {"what": "bad", "passed": False, "value": "off by 1", "failed": ["layer.0.output: off by 1"]}


def part(function, needs=("numpy",), seconds=60.0):
    return Part(function.__name__, "does it run?", f"{__name__}:{function.__name__}", needs, seconds)


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Run the program with these parts; returns its exit code, its record and its page."""

    def run(*parts, seconds=300):
        monkeypatch.setattr(program, "PARTS", parts)
        files = [str(tmp_path / name) for name in ("found.json", "found.html")]
        arguments = ["--device", "cpu", "--small", "--json", files[0], "--html", files[1], "--seconds", str(seconds)]
        monkeypatch.setattr(sys, "argv", ["on_device", *arguments])
        with pytest.raises(SystemExit) as ended:
            program.main()
        return ended.value.code, json.loads(Path(files[0]).read_text()), Path(files[1]).read_text()

    return run


def states(record):
    return {part["name"]: (part["state"], len(part["found"])) for part in record["parts"]}


def test_no_part_stops_another(run):
    absent = part(two_findings, needs=("numpy", "no_such_package"))
    code, record, text = run(
        part(one_then_hangs, seconds=6), part(one_then_raises), part(nothing), part(not_agreed), absent
    )
    assert code == 1
    assert states(record) == {
        "one_then_hangs": ("out of time", 1),
        "one_then_raises": ("failed", 1),
        "nothing": ("failed", 0),
        "not_agreed": ("done", 1),
        "two_findings": ("absent", 0),
    }
    why = {part["name"]: part["why"] for part in record["parts"]}
    assert why["one_then_hangs"] == "stopped after 6 s, with 1 findings"
    assert why["one_then_raises"] == "RuntimeError: out of memory"
    assert why["two_findings"] == "no_such_package is not installed"
    assert all(sentence in text for sentence in why.values())
    assert record["passed"] is False
    assert record["packages"]["numpy"][0].isdigit()


def test_a_run_that_is_stopped_leaves_no_process(monkeypatch):
    """Neither of the two, because a device is dear."""
    stopped = []

    class Process(subprocess.Popen):
        def wait(self, timeout=None):
            if not stopped:
                stopped.append(self)
                raise KeyboardInterrupt
            return super().wait(timeout)

    monkeypatch.setattr(running.subprocess, "Popen", Process)
    with pytest.raises(KeyboardInterrupt):
        running.run_part(part(one_then_hangs), "cpu", True, 60)
    assert stopped[0].poll() == -signal.SIGKILL


def test_torch_has_no_part_on_a_tpu():
    one = next(one for one in PARTS if one.name == "speed-torch")
    found = running.run_part(one, "tpu:0", True, 60)
    assert (found["state"], found["why"]) == ("absent", "torch does not run on tpu:0")


def test_what_passed_is_said_and_shown(run):
    code, record, text = run(part(two_findings), part(nothing, needs=("no_such_package",)))
    assert code == 0
    assert record["passed"] is True
    assert record["parts"][0]["found"][0]["number"] == "nan"
    assert "second &lt;b&gt;" in text
    assert "launches: 5" in text
    assert "a dry run on tiny models" in text
    parser = HTMLParser()
    parser.feed(text)
    assert "http" not in text.replace("https://", ""), "the page loads nothing"


def test_the_time_of_all_parts_is_a_limit(run):
    code, record, _ = run(part(two_findings), seconds=1)
    assert (code, states(record)) == (1, {"two_findings": ("not reached", 0)})


def test_a_record_of_nothing_has_not_passed():
    assert not passed({"parts": []})
    assert not passed({"parts": [{"state": "absent", "found": []}]})


def test_all_parts_together_take_less_than_eight_minutes():
    assert sum(part.seconds for part in PARTS) <= program.SECONDS < 480
    assert len({part.name for part in PARTS}) == len(PARTS)
    for one in PARTS:
        module, _, name = one.function.partition(":")
        assert name in Path(running.ROOT, *module.split(".")).with_suffix(".py").read_text()


def test_the_stand_in_computes_the_same_checksum():
    assert stand_in.value(b"123456789") == 0xE3069283
    for size in (0, 1, 7, 1000):
        data = random.Random(size).randbytes(size)
        assert stand_in.value(data) == google_crc32c.value(data)
        assert stand_in.extend(stand_in.value(data), b"more") == google_crc32c.extend(
            google_crc32c.value(data), b"more"
        )


@pytest.mark.slow
def test_a_dry_run_on_the_cpu(tmp_path):
    """Every part on tiny models; a busy machine may need longer than a device does."""
    record = {"device": "cpu", "small": True, "begun": "now", "python": "3", "packages": {}, "parts": []}
    for one in PARTS:
        record["parts"].append(running.run_part(Part(**(vars(one) | {"seconds": 500.0})), "cpu", True, 500.0))
    found = {part["name"]: part for part in record["parts"]}
    for name, one in found.items():
        assert one["state"] == "done", (name, one["why"], one.get("said"))
        assert one["found"], name
        assert not [finding for finding in one["found"] if finding["passed"] is False], name
    heads = {finding["what"] for finding in found["parity-float32-torch"]["found"]}
    assert len(heads) == 8 + 4, heads
    assert {finding["what"].partition(",")[0] for finding in found["speed-torch"]["found"]} == {"torch"}
    assert any("the_same_every_time" in one["what"] and one["passed"] for one in found["tests"]["found"])
    (table,) = [finding["table"] for finding in found["calibration-flax"]["found"]]
    assert len(table["entries"]) > 50
    assert "✓ passed" in page(record)
