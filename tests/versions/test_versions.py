"""The parts of make test-versions that need no network: what is installed, what a report says, and the page."""

import pytest

from bigbird_port.installed import STACK
from tests.conftest import ROOT
from tests.versions.matrix import STACKS, TESTS, requirements
from tests.versions.page import page
from tests.versions.run import Outcome, read_report

REPORT = """<testsuites><testsuite>
<testcase classname="a" name="good"/><testcase classname="a" name="left"><skipped/></testcase>%s
</testsuite></testsuites>"""


@pytest.mark.parametrize("stack", STACKS, ids=lambda stack: stack.name)
def test_a_stack_has_both_frameworks_and_what_runs_the_tests(stack):
    lines = requirements(stack)
    begins = ("torch", "jax", "flax", "optax", "numpy", "tokenizers", "sentencepiece", "safetensors", "pytest", "peft")
    assert all(any(line.startswith(name) for line in lines) for name in begins)
    assert [line for line in lines if line.startswith("transformers")] == [stack.transformers]
    assert not any(line.startswith("bigbird-port") for line in lines)


def test_the_tests_that_run_are_there():
    assert all((ROOT / name).exists() for name in TESTS)


@pytest.mark.parametrize("broken", ["<failure/>", "<error/>"])
def test_a_failure_makes_a_stack_fail(broken, tmp_path):
    report = tmp_path / "report.xml"
    report.write_text(REPORT % "")
    good = Outcome("s", dict.fromkeys(STACK, "1"), *read_report(report))
    assert (good.counts, good.passed) == ({"passed": 1, "failed": 0, "skipped": 1}, True)
    report.write_text(REPORT % f'<testcase classname="a" name="bad">{broken}</testcase>')
    bad = Outcome("s", dict.fromkeys(STACK, "1"), *read_report(report))
    assert (bad.failures, bad.passed) == (("a::bad",), False)
    assert "* s: `a::bad`" in page([good, bad])
    lost = Outcome("s", {}, *read_report(tmp_path / "none.xml"))
    assert not lost.passed
    assert "Failed" not in page([good])
