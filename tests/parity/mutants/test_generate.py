"""Which mutants a text has."""

import ast

import pytest

from parity.mutants.generate import mutants_of, sample
from parity.mutants.rules import RULES
from parity.mutants.scope import Source, sources

HERE = Source("models_torch/some.py", "models_torch.some", "torch")


def changed(text, rule=None):
    return {mutant.apply(text.encode()).decode() for mutant in mutants_of(HERE, text) if rule in (None, mutant.rule)}


@pytest.mark.parametrize(
    ("rule", "text", "expected"),
    [
        ("operator", "y = a + b", {"y = (a - b)"}),
        ("operator", "y = a / b", {"y = (a * b)", "y = (b / a)"}),
        ("dropped term", "y = a + b", {"y = (a)", "y = (b)"}),
        ("dropped term", "y = ~a", {"y = (a)"}),
        ("condition", "y = a if b else c", {"y = (a)", "y = (c)"}),
        ("condition", "if a:\n    b()", {"if (not (a)):\n    b()"}),
        ("constant", "y = 3", {"y = (4)", "y = (2)"}),
        ("constant", "y = True", {"y = (False)"}),
        ("comparison", "y = a < b", {"y = (a <= b)", "y = (a > b)"}),
        ("slice", "y = x[:, n:]", {"y = x[:, (n) + 1:]", "y = x[:, (n) - 1:]", "y = x[:, :]", "y = x[:, :n]"}),
        ("axis", "y = x[None, :]", {"y = (x[:, None])"}),
        ("off by one", "y = range(n)", {"y = (range(n + 1))", "y = (range(n - 1))"}),
        ("off by one", "for i in x:\n    f(i)", {f"for i in list(x){end}:\n    f(i)" for end in ("[1:]", "[:-1]")}),
        ("dropped call", "y = f(x)", {"y = (x)"}),
        ("dropped call", "y = x.t()", {"y = (x)"}),
        ("arguments", "y = f(a, b, c=1)", {"y = (f(b, a, c=1))", "y = (f(a, b))"}),
        ("mask", "y = f(x, mask_BL)", {"y = (f(x, mask_BL == 0))"}),
        ("name or dtype", "y = torch.float32", {"y = (torch.bfloat16)"}),
        ("order", "y = cat([a, b])", {"y = cat(([b, a]))"}),
        ("detached gradient", "x_BLD = f()", {"x_BLD = (f()).detach()"}),
        ("dropped statement", "y += 1", {"pass"}),
        ("dropped statement", "y = 0\ny = f(y)", {"y = 0\npass"}),
    ],
)
def test_a_rule_changes_what_it_says(rule, text, expected):
    assert changed(text, rule) == expected


@pytest.mark.parametrize(
    "text",
    [
        '"""A docstring of 2 words."""',
        "import torch",
        "def f(x: int) -> dict[str, int]: ...",
        "raise ValueError(1 + 2)",
        "x: tuple[int, ...]",
        'y = f"{a + b}"',
    ],
)
def test_what_is_no_part_of_the_function_is_left_as_it_is(text):
    assert changed(text) == set()


def test_every_mutant_of_the_models_is_python_and_says_something_else():
    for into in ("torch", "flax"):
        source = next(source for source in sources(into) if source.file.endswith("attention/plain.py"))
        text = source.path.read_text()
        texts = [mutant.apply(text.encode()) for mutant in mutants_of(source, text)]
        assert len(texts) > 50
        assert len(set(texts)) == len(texts)
        assert ast.dump(ast.parse(text)) not in {ast.dump(ast.parse(one)) for one in texts}


def test_all_rules_find_something_in_the_models():
    found = {
        m.rule for source in sources("flax", "models_flax/bigbird") for m in mutants_of(source, source.path.read_text())
    }
    assert found >= {*RULES, "detached gradient", "dropped statement"}


def test_a_mutant_of_a_file_that_has_changed_is_refused():
    mutant = mutants_of(HERE, "y = a + b")[0]
    with pytest.raises(ValueError, match="has changed since its mutants were made"):
        mutant.apply(b"z = 1")


def test_a_sample_is_drawn_by_its_seed():
    every = mutants_of(HERE, "y = a + b - c * d")
    assert sample(every, 3, 1) == sample(every, 3, 1) != sample(every, 3, 2)
    assert len(sample(every, 3, 1)) == 3
    assert sample(every, None, 0) == sample(every, 1000, 0) == every


def test_files_are_chosen_by_name_folder_or_pattern():
    assert [source.file for source in sources("torch", "bigbird_port/sparse/packing.py")] == [
        "bigbird_port/sparse/packing.py"
    ]
    assert len(sources("torch", "models_torch/attention/")) > 5
    assert {source.framework for source in sources("flax")} == {"flax", ""}
    with pytest.raises(ValueError, match="--only models_flax is none of the files that have mutants"):
        sources("torch", "models_flax")
