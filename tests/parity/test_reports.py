"""Reports say what the result says, all of it, in every format; nothing in a name becomes markup."""

import dataclasses
import http.server
import itertools
import json
import math
import os
import re
import shutil
import subprocess
import threading
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest
from click.testing import CliRunner

from bigbird_port.cli import main
from bigbird_port.families.bigbird.config import BigBirdConfig
from bigbird_port.sparse.pattern import layer_pattern
from parity.checks.integrity import Check
from parity.measure.metrics import Difference, LogitsDifference
from parity.measure.stages import stage_of
from parity.measure.tolerances import Tolerance
from parity.reports import histogram, pattern_picture
from parity.reports.curves import curves
from parity.reports.json_file import from_json, read_report, to_json
from parity.reports.junit import to_junit
from parity.reports.markdown import to_markdown
from parity.reports.page import heat_maps, runs, to_html
from parity.reports.report import Report, by_head, figure, last_line
from parity.reports.terminal import to_text
from parity.run.results import Condition, Finding, Part, Result, Row
from tests.conftest import ROOT
from tests.parity.small_results import HEADS, MARKUP

SCHEMA = json.loads((ROOT / "docs/parity-report.schema.json").read_text())
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def test_the_two_reports_are_what_the_tests_take_them_for(passing, failing):
    assert passing.result.passed
    assert len(passing.result.rows) > 70
    assert not failing.result.passed
    assert {row.tap for row in failing.result.failures} == {"layer.0.query", "layer.1.context"}


# JSON


def test_json_reads_back_as_it_was(passing, failing):
    for report in (passing, failing):
        text = json.dumps(to_json(report), allow_nan=False)
        again = from_json(json.loads(text))
        assert json.dumps(to_json(again)) == text
        for name in (
            "heads",
            "conditions",
            "checks",
            "initialised",
            "not_compared",
            "located",
            "environment",
            "witnesses",
        ):
            assert getattr(again.result, name) == getattr(report.result, name), name
        config = json.loads(json.dumps(report.config))  # JSON has no numbers as keys
        assert (again.config, again.detection) == (config, report.detection)
        assert again.result.passed == report.result.passed
        for row, other in zip(again.result.rows, report.result.rows, strict=True):
            assert repr(row) == repr(other)  # equal, NaN included


def test_infinite_figures_and_scores_survive():
    logits = LogitsDifference(math.inf, 0.5, 1.0, 0.8, 2, 0.1, 7)
    difference = Difference(max_abs=0.0, excess=0.0, snr_db=math.inf, would_pass=-math.inf, logits=logits)
    row = Row(
        "qa",
        "c",
        "torch",
        "flax",
        "local",
        "x",
        Part(1, 2, "0:4"),
        (1, 2),
        Tolerance(1.0, 0.5, 2.0, "r", "key"),
        difference,
    )
    values = to_json(Report(Result(heads=["qa"], rows=[row])))
    assert (values["rows"][0]["snr_db"], values["rows"][0]["would_pass"]) == ("Infinity", "-Infinity")
    assert values["rows"][0]["max_ulp"] is None
    (again,) = from_json(json.loads(json.dumps(values, allow_nan=False))).result.rows
    assert repr(again) == repr(row)


def test_json_follows_its_schema(passing, failing):
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(SCHEMA)
    validator.check_schema(SCHEMA)
    for report in (passing, failing):
        values = json.loads(json.dumps(to_json(report)))
        validator.validate(values)
        del values["rows"][0]["max_abs"]
        assert not validator.is_valid(values)


def test_the_schema_has_every_field():
    row, other = SCHEMA["properties"]["rows"]["items"]["properties"], SCHEMA["properties"]
    derived = {"attention_head", "passed", "tolerance_entry"}
    names = {field.name for cls in (Row, Difference) for field in dataclasses.fields(cls)} - {"difference"} | derived
    assert set(row) == names
    assert set(other) == {field.name for field in dataclasses.fields(Result)} | {
        *("version", "bigbird_port", "passed", "tolerances", "config", "detection")
    }
    parts = {Part: row["part"]["anyOf"][1], LogitsDifference: row["logits"]["anyOf"][1]}
    lists = {Condition: "conditions", Check: "checks", Tolerance: "tolerances", Finding: "located"}
    for cls, values in (parts | {cls: other[name]["items"] for cls, name in lists.items()}).items():
        assert set(values["properties"]) == {field.name for field in dataclasses.fields(cls)}, cls


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"version": 1}', "expected a parity report of version 4, found 1"),
        ("[]", "found 'list'"),
        ("{", "Expecting property name"),
        ('{"version": 4}', "KeyError: 'tolerances'"),
    ],
)
def test_what_is_no_report_is_refused(tmp_path, text, message):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ValueError, match=re.escape(message)):
        read_report(tmp_path / "x.json")


# Terminal and Markdown


def test_the_terminal_shows_checks_heads_faults_and_counts(passing, failing):
    text = to_text(failing)
    assert f"FAIL {MARKUP}: 1 of 46 differ: {MARKUP}" in text
    assert "first failure: masked-lm, layer.1.context, torch against reference: max abs 1.0e-02 at [0, 40" in text
    assert "located: starts here: layer.1.context" in text
    assert "causal-lm: asked for, but nothing was compared" in text
    assert "qa: 8 head weights not in the checkpoint" in text
    assert "MISSED" in text
    assert text.splitlines()[-1] == last_line(failing.result)
    assert "over 3 of 4 heads, 7 failed" in last_line(failing.result)
    assert last_line(failing.result).endswith("not compared: causal-lm (1x528)")
    assert last_line(passing.result).startswith(
        f"PASSED: {len(passing.result.rows)} comparisons over 3 of 3 heads, 0 fa"
    )
    assert "FAIL" not in to_text(passing)


def test_a_head_fails_with_the_layers_that_it_shares(failing):
    """The base model's layers are compared once, as those of masked-lm."""
    lines = [line.split() for line in to_text(failing).splitlines() if line.startswith("base ")]
    assert lines[0][:8] == ["base", "1x528", "torch", "/", "reference", "38", "3", "layer.1.context"]
    assert "| base | 1x528 | 38 | 3 ❌ | layer.1.context |" in to_markdown(failing)


def test_markdown_is_short_and_holds_no_markup_from_names(failing, passing):
    text = to_markdown(failing)
    assert text.startswith("## BigBird parity: failed ❌")
    assert "### Where it starts" in text
    assert "missed ❌" in text
    assert not re.search(r"(?<!\\)[<`]", text)
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    columns = {len(re.findall(r"(?<!\\)\|", line)) for line in rows}
    assert columns == {9, 5}
    assert to_markdown(passing).startswith("## BigBird parity: passed ✅")
    assert "### Failures" not in to_markdown(passing)


def test_markdown_says_how_many_failures_it_leaves_out(failing):
    rows = failing.result.rows * 3
    assert "and 11 more" in to_markdown(Report(replace(failing.result, rows=rows)))


# JUnit


def test_junit_has_a_case_for_each_tap_pair_and_kind(passing, failing):
    root = ElementTree.fromstring(to_junit(passing))
    assert [suite.get("name") for suite in root] == ["integrity", *(f"{head}, 1x528" for head in HEADS)]
    cases = {(case.get("classname"), case.get("name")) for case in root.iter("testcase")}
    for row in passing.result.rows:
        for head in row.heads:
            assert (f"{head}.1x528", f"{row.tap}: torch against reference ({row.error})") in cases
    assert root.get("failures") == "0"
    assert int(root.get("tests")) == len(list(root.iter("testcase"))) == len(cases)


def test_junit_failures_carry_the_numbers(failing):
    root = ElementTree.fromstring(to_junit(failing))
    found = {
        (case.get("classname"), case.get("name")): case.find("failure").text
        for case in root.iter("testcase")
        if case.find("failure") is not None
    }
    context = found["masked-lm.1x528", "layer.1.context: torch against reference (accumulated)"]
    assert re.search(r"max abs 1\.0e-02 at \[0, 40, 1, \d\], \d\S+ times what is allowed", context)
    assert "layer.1.context head 1" in context  # a part of the tap
    assert "layer.1.context head 0" not in context
    (row,) = (row for row in failing.result.failures if (row.head, row.error, row.part) ==
              ("masked-lm", "accumulated", None))  # fmt: skip
    assert f"tolerance {row.tolerance.bound:.1e} ({row.tolerance.reason})" in context
    assert "NaN or Inf at [0, 3, 1]" in found["qa.1x528", "layer.0.query: torch against reference (local)"]
    assert ("causal-lm.1x528", "compared") in found
    assert found["integrity", MARKUP] == f"1 of 46 differ: {MARKUP}"
    assert len(found) == int(root.get("failures")) == 9


def test_junit_of_nothing_fails_and_control_characters_do_no_harm():
    assert ElementTree.fromstring(to_junit(Report(Result()))).get("failures") == "1"
    result = Result(heads=["a\x00b"], conditions=[Condition("c", 1, 1, "")])
    assert ElementTree.fromstring(to_junit(Report(result)))[0].get("name") == "a?b, c"


# HTML


class Page(HTMLParser):
    """What is on a page: its tags in order, its text, whether tags are closed."""

    VOID = ("meta", "link", "br", "wbr", "hr", "img")

    def __init__(self, html):
        super().__init__()
        self.tags, self.open, self.text = [], [], ""
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] != ["style"]:
            self.text += data

    def all(self, name):
        return [attributes for tag, attributes in self.tags if tag == name]


@pytest.fixture(scope="module")
def pages(passing, failing):
    return {
        "passing": Page(to_html(passing)),
        "failing": Page(to_html(failing)),
        "empty": Page(to_html(Report(Result()))),
    }


def test_pages_hold_no_script_and_load_nothing(passing, failing):
    for report in (passing, failing):
        html = to_html(report)
        page = Page(html)
        assert not page.all("script")
        assert not page.all("img")
        assert not re.search(r"url\((?!#)|@import|@font-face|https?:", html)
        for _, attributes in page.tags:
            assert not [name for name in attributes if name.startswith("on")]
            for name in ("src", "href", "data", "action", "srcset"):
                assert attributes.get(name, "#").startswith(("#", "data:,"))
        (policy,) = [meta["content"] for meta in page.all("meta") if meta.get("http-equiv")]
        assert policy.startswith("default-src 'none'")


def test_pages_are_accessible(pages):
    for page in pages.values():
        assert page.all("html") == [{"lang": "en"}]
        levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h\d", tag)]
        assert levels[0] == 1
        assert levels.count(1) == 1
        assert all(b <= a + 1 for a, b in itertools.pairwise(levels))
        names = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
        assert len(names) == len(set(names))
        for svg in page.all("svg"):
            assert svg.get("aria-hidden") == "true" or (
                svg["role"] == "img" and all(name in names for name in svg["aria-labelledby"].split())
            )
        assert all(th.get("scope") in ("row", "col") for th in page.all("th"))
        assert len(page.all("caption")) == len(page.all("table"))
        links = {a["href"].removeprefix("#") for a in page.all("a")} | {u["href"][1:] for u in page.all("use")}
        assert links <= set(names)
    assert len(pages["failing"].all("svg")) > 12


def test_pages_say_what_the_result_says(pages, failing, passing):
    text = pages["failing"].text
    assert "✗ FAILED" in text
    assert last_line(failing.result) in text
    assert MARKUP in text  # as text: the parser has undone the escaping
    for finding in failing.result.located:
        assert finding.sentence in text
    for row in failing.result.failures:
        assert row.difference.problem or figure(row.difference.max_abs) in text
    for row in passing.result.rows:
        assert figure(row.difference.would_pass) in pages["passing"].text
        for part in row.tolerance.reason.split("; ", 1):
            assert part in pages["passing"].text
    assert "✗ missed" in text
    assert "query transposedlayer.0.query✓ 1.32e+04✓ 9.12e+03" in text
    assert "✓ PASSED" in pages["passing"].text
    assert "FAIL" not in pages["passing"].text
    assert "Where it starts" not in pages["passing"].text
    assert "✗ FAILED" in pages["empty"].text


def test_a_page_begins_with_where_it_starts(pages, passing, failing):
    """Before any table: the place, once for all heads and conditions in which it is."""
    head = pages["failing"].text.partition("What was compared")[0]
    assert head.count("Starts here:") == 1
    count = len(failing.result.located)
    assert count > 1
    assert f"Starts here: layer.1.context, torch against reference, {count} times, first in masked-lm, 1x528" in head
    once = Page(to_html(Report(replace(failing.result, located=failing.result.located[:1])))).text
    assert "Starts here: layer.1.context, torch against reference, in masked-lm, 1x528" in once
    unlocated = Page(to_html(Report(replace(failing.result, located=[])))).text
    assert "First failure: layer.1.context, torch against reference, in masked-lm, 1x528" in unlocated
    assert "Starts here:" not in pages["passing"].text


def test_numbers_in_a_row_are_said_as_a_run():
    assert runs(()) == []
    assert runs((1, 2, 5, 7, 8, 9, 10)) == ["1", "2", "5", "7 to 10"]


def test_many_failures_are_counted_not_dropped(failing):
    result = replace(failing.result, rows=failing.result.rows * 15)
    assert "The first 100 of 105 failed comparisons" in Page(to_html(Report(result))).text


def test_text_stands_out_from_its_ground():
    """Contrast of at least 4.5 (WCAG AA), in light and in dark; 3 for what is drawn."""
    css = (ROOT / "parity/reports/page.css").read_text()
    palettes = re.findall(r":root \{(.*?)\}", css, flags=re.DOTALL)
    assert len(palettes) == 2
    for palette in palettes:
        colours = {name: _luminance(value) for name, value in re.findall(r"--(\w+): (#\w{6});", palette)}
        grounds = [colours[name] for name in ("paper", "card", "off")]
        for name in ("ink", "quiet", "ok", "bad", "link"):
            assert min(_contrast(colours[name], ground) for ground in grounds) >= 4.5, name
        assert _contrast(colours["ink"], colours["heat"]) >= 4.5
        for name in ("torch", "flax", "reference", "transformers", "other", "window", "random", "repeated"):
            assert _contrast(colours[name], colours["card"]) >= 3, name
        assert _contrast(colours["repeated"], colours["random"]) >= 2
        assert _contrast(colours["global"], colours["window"]) >= 2


def _luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(a, b):
    return (max(a, b) + 0.05) / (min(a, b) + 0.05)


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine: the page is not opened in a browser")
def test_a_browser_finds_nothing_to_complain_of_and_loads_nothing(failing, tmp_path):
    dom, messages, requests = browse(to_html(failing), tmp_path)
    assert "<h1>BigBird parity" in dom
    assert messages == []
    assert requests == ["127.0.0.1/"]


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine: the page is not opened in a browser")
def test_a_page_that_loads_something_would_be_found_out(tmp_path):
    """The negative control of the test above."""
    page = '<script>console.error("trouble")</script><img src="a.png"><img src="http://example.org/b.png">'
    _, messages, requests = browse(page, tmp_path)
    assert "trouble" in messages[0]
    assert {"127.0.0.1/", "127.0.0.1/a.png", "example.org/b.png"} <= set(requests)


def browse(page, folder):
    """Open a page that a server of the test's own gives out, which also stands in for every other host.

    Returns the page as the browser has it, what its console says, and host and path of every request.
    """
    requests = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            requests.append(self.headers["Host"].partition(":")[0] + self.path)
            self.send_response(200 if self.path == "/" else 404)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            if self.path == "/":
                self.wfile.write(page.encode())

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            done = subprocess.run(_command(server.server_port, folder), capture_output=True, text=True,
                                  check=True, timeout=60)  # fmt: skip
        finally:
            server.shutdown()
            thread.join()
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line], requests


def _command(port, folder):
    flags = [
        "--headless=new",
        "--disable-gpu",
        "--no-first-run",
        "--enable-logging=stderr",
        "--virtual-time-budget=2000",
    ]
    flags += ["--disable-background-networking", "--disable-component-update", f"--user-data-dir={folder / 'profile'}"]
    flags += [f"--host-resolver-rules=MAP * 127.0.0.1:{port}"]
    flags += ["--disable-features=NetworkTimeServiceQuerying"]  # the browser's own request
    flags += ["--no-sandbox"] if os.getuid() == 0 else []
    return [CHROMIUM, *flags, "--dump-dom", f"http://127.0.0.1:{port}/"]


# What the pictures are drawn from


def test_curves_have_the_worst_row_of_each_stage(passing):
    found = {(one.head, one.error): one for each in by_head(passing.result) for one in curves(*each)}
    assert set(found) == {(head, error) for head in HEADS for error in ("accumulated", "local")}
    assert (found["masked-lm", "local"].sources, found["base", "local"].sources) == ((), ("masked-lm",))
    assert found["base", "local"].series[0].worst["head"].tap == "pooler_output"
    accumulated = found["masked-lm", "accumulated"]
    assert accumulated.stages == ["embeddings", 0, 1, "head"]
    (series,) = accumulated.series
    rows = [row for row in passing.result.rows if row.head == "masked-lm" and row.error == "accumulated"]
    for stage, worst in series.worst.items():
        assert worst.difference.excess == max(row.difference.excess for row in rows if stage_of(row.tap) == stage)


def test_stages():
    taps = (
        "embeddings",
        "embeddings_prenorm",
        "layer.0.query",
        "layer.11.output",
        "logits",
        "pooler_output",
        "rand_attn.3",
    )
    grads = (
        "grad.embeddings.word_embeddings.embedding",
        "grad.encoder.layer.2.output.dense.kernel",
        "grad.layer.4.value",
    )
    assert [stage_of(tap) for tap in taps] == ["embeddings", "embeddings", 0, 11, "head", "head", 3]
    assert [stage_of(tap) for tap in grads] == ["embeddings", 2, 4]


def test_heat_maps_show_every_attention_head(failing):
    maps = heat_maps(failing.result.rows)
    assert [(one.name, one.pair) for one in maps] == [
        (f"{head}, 1x528", "torch against reference") for head in ("masked-lm", "qa")
    ]
    for one in maps:
        assert {layer: sorted(cells) for layer, cells in one.cells.items()} == {0: [0, 1], 1: [0, 1]}
        assert [n for n, row in one.cells[1].items() if not row.passed] == [1]
        assert one.failed == 1


def test_the_histogram_counts_every_row_on_its_side_of_the_tolerance(failing):
    bins = histogram.histogram(failing.result.rows)
    assert sum(one.total for one in bins) == len(failing.result.rows)
    assert sum(one.total for one in bins if one.low >= 0) == len(list(failing.result.failures))
    assert bins[-1].name == "none"
    row = failing.result.rows[0]
    at = {
        x: histogram.histogram([replace(row, difference=replace(row.difference, excess=x))])[0].low
        for x in (0.0, 1.0, 1.01)
    }
    assert at == {0.0: -math.inf, 1.0: -1, 1.01: 0}
    assert histogram.histogram([replace(row, difference=replace(row.difference, excess=1e-9))])[0].name == "<3e-06"


@pytest.mark.parametrize("length", [528, 500])
def test_the_pattern_picture_shows_the_pattern(length):
    config = BigBirdConfig(hidden_size=16, num_attention_heads=2, num_hidden_layers=2, block_size=16,
                           max_encoder_length=528, max_position_embeddings=1024)  # fmt: skip
    n = -(-length // 16)
    layers = list(pattern_picture.grids(config.to_dict(), length))
    assert len(layers) == 2
    for layer, found in enumerate(layers):
        pattern = layer_pattern(config, layer, length)
        for head, grid in enumerate(found):
            expected = np.zeros((n, n), int)
            for q, (keys, live) in enumerate(zip(pattern.key_blocks[head], pattern.live[head], strict=True), 1):
                np.add.at(expected[q], keys[live], 1)
            expected[[0, *range(len(pattern.key_blocks[head]) + 1, n)]] = 1
            union = sum(grid.kinds[kind].astype(int) for kind in ("global", "window", "random"))
            assert np.array_equal(union, (expected > 0).astype(int))  # every block once, and no other
            assert np.array_equal(grid.kinds["repeated"], expected > 1)
            for kind in ("global", "window"):  # drawn once for all
                assert np.array_equal(grid.kinds[kind], layers[0][0].kinds[kind])
    assert not np.array_equal(layers[0][0].kinds["random"], layers[1][0].kinds["random"])


def test_repeated_blocks_are_marked():
    """transformers' evaluation draws block 0 for every random block, which is a global block as well."""
    config = BigBirdConfig(hidden_size=16, num_attention_heads=2, num_hidden_layers=1, block_size=16,
                           max_encoder_length=528, random_blocks="transformers", num_random_blocks=3)  # fmt: skip
    ((grid, _),) = pattern_picture.grids(config.to_dict(), 528)
    assert np.argwhere(grid.kinds["repeated"]).tolist() == [[q, 0] for q in range(1, 32)]
    assert grid.count("random") == 0


def test_the_picture_is_that_of_the_longest_condition_and_its_overrides(passing):
    (condition,) = passing.result.conditions
    longer = replace(condition, name="longer", length=768, overrides={"max_encoder_length": 768})
    page = Page(to_html(replace(passing, result=replace(passing.result, conditions=[condition, longer]))))
    assert "under longer" in page.text
    assert [svg["viewbox"] for svg in page.all("svg") if svg.get("viewbox") == "0 0 48 48"] == ["0 0 48 48"] * 4


def test_full_attention_has_no_picture(passing):
    page = Page(to_html(replace(passing, config=passing.config | {"attention_type": "original_full"})))
    assert "Attention is full" in page.text


# On the command line


def test_a_saved_report_is_rendered_again(failing, tmp_path):
    (tmp_path / "run.json").write_text(json.dumps(to_json(failing)))
    files = [part for name in ("html", "junit", "markdown") for part in (f"--{name}", str(tmp_path / name))]
    done = CliRunner().invoke(main, ["parity", "report", str(tmp_path / "run.json"), *files])
    assert (done.exit_code, done.output) == (0, "")
    assert (tmp_path / "html").read_text() == to_html(failing)
    assert (tmp_path / "junit").read_text() == to_junit(failing)
    assert (tmp_path / "markdown").read_text() == to_markdown(failing)
    shown = CliRunner().invoke(main, ["parity", "report", str(tmp_path / "run.json")])
    assert shown.output.splitlines()[-1] == last_line(failing.result)
    piped = CliRunner().invoke(main, ["parity", "report", str(tmp_path / "run.json"), "--markdown", "-"])
    assert piped.output == to_markdown(failing)


def test_parity_writes_every_report(converted, tmp_path):
    files = {name: tmp_path / name for name in ("json", "html", "junit", "markdown")}
    arguments = [part for name, path in files.items() for part in (f"--{name}", str(path))]
    out = str(converted("mini-pretrain"))
    given = ["--head", "base", "--length", "40", "--against", "torch,reference", *arguments]
    done = CliRunner().invoke(main, ["parity", out, *given])
    assert done.exit_code == 0, done.output
    report = read_report(files["json"])
    assert report.config["vocab_size"] == 80
    assert done.output.splitlines()[-1] == last_line(report.result)
    assert files["html"].read_text() == to_html(report)
    assert files["junit"].read_text() == to_junit(report)
    assert files["markdown"].read_text() == to_markdown(report)


def test_a_missing_report_is_a_message():
    done = CliRunner().invoke(main, ["parity", "report", "absent.json"])
    assert done.exit_code == 2
    assert "absent.json: expected a report that parity --json wrote" in done.output
