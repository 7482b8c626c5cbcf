"""What works without a framework, and what the others say; and ``--version``, which tells the stack."""

import importlib.metadata
import json
import re
import subprocess
import sys
import time
import tomllib

import pytest
import torch

import bigbird_port
from bigbird_port.installed import EXTRAS, STACK, need
from tests.conftest import DEMO, ROOT

TORCH = {"torch"}
FLAX = {"jax", "jaxlib", "flax", "optax", "orbax"}


def without(modules, program):
    """Run a program in a process of its own for which these modules are not installed; return what it printed."""
    blocked = f"import sys\nsys.modules.update(dict.fromkeys({sorted(modules)}))\n"
    kept = f"\nassert all(sys.modules[name] is None for name in {sorted(modules)})"
    done = subprocess.run([sys.executable, "-c", blocked + program + kept], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


COMMANDS = """
import json
from click.testing import CliRunner
from bigbird_port.cli import main
found = {}
for line in %r:
    done = CliRunner().invoke(main, line.split())
    found[line] = done.exit_code, done.output
print(json.dumps(found))
"""


def run_without(modules, *lines):
    return json.loads(without(modules, COMMANDS % (lines,)).splitlines()[-1])


def test_the_base_install_converts_and_verifies_and_says_what_the_rest_needs(tmp_path):
    out, binary = tmp_path / "out", tmp_path / "model.bin"
    torch.save({"bert.embeddings.word_embeddings.weight": torch.ones(2, 2)}, binary)
    works = (
        f"convert {DEMO} {out}",
        f"verify {out}",
        f"inspect {out}",
        f"diff {out} {DEMO}",
        "schema",
        "parity faults --list",
    )
    both = (
        "parity",
        f"parity {out}",
        "parity faults",
        f"parity bisect {out} --head qa",
        "parity calibrate",
        "parity mutants",
        "demo",
    )
    orbax = f"convert {DEMO} {tmp_path / 'orbax'} --flax-format orbax"
    found = run_without(TORCH | FLAX | {"transformers"}, *works, *both, orbax, f"inspect {binary}")
    assert all(found[line][0] == 0 for line in works), found
    for line in both:
        code, said = found[line]
        assert code == 2, line
        assert re.fullmatch(
            r"Error: (the )?[a-z ]+ needs torch, jax, flax and optax, which are not installed: "
            r"pip install 'bigbird-port\[torch,flax\]'\n",
            said,
        ), said
    assert found[orbax] == [
        2,
        "Error: --flax-format orbax needs orbax, which is not installed: pip install 'bigbird-port[flax]'\n",
    ]
    assert not (tmp_path / "orbax").exists()
    assert found[f"inspect {binary}"][0] == 2
    assert "needs torch, which is not installed: pip install 'bigbird-port[torch]'" in found[f"inspect {binary}"][1]


IMPORTS = """
from bigbird_port.tokenizers.calls.batch import to_tensors
import importlib
for run in (
    lambda: importlib.import_module("models_torch"),
    lambda: importlib.import_module("models_flax"),
    lambda: importlib.import_module("models_flax.training"),
    lambda: importlib.import_module("bigbird_port.integrations.transformers"),
    lambda: to_tensors({"input_ids": [[1]]}, "pt"),
    lambda: to_tensors({"input_ids": [[1]]}, "jax"),
):
    try:
        run()
        print("works")
    except ImportError as error:
        print(error)
"""


def test_an_import_says_which_extra_brings_what_it_needs():
    lines = without(TORCH | FLAX | {"transformers"}, IMPORTS).splitlines()
    begins = (
        "models_torch",
        "models_flax",
        "models_flax",
        "bigbird_port.integrations.transformers",
        "return_tensors='pt'",
        "return_tensors='jax'",
    )
    extras = ("torch", "flax", "flax", "torch,transformers", "torch", "flax")
    for line, begin, extra in zip(lines, begins, extras, strict=True):
        assert line.startswith(f"{begin} needs ")
        assert line.endswith(f"not installed: pip install 'bigbird-port[{extra}]'")


MODELS = """
import numpy as np
from bigbird_port.families.bigbird.config import BigBirdConfig
config = BigBirdConfig(vocab_size=60, hidden_size=8, num_attention_heads=2, num_hidden_layers=1, intermediate_size=8,
                       max_position_embeddings=64, block_size=4, num_random_blocks=1)
"""
IN_TORCH = (
    MODELS
    + """
import torch, models_torch
model = models_torch.BigBirdForMaskedLM(config).eval()
model(torch.tensor([[3, 4, 5]]), labels=torch.tensor([[3, 4, 5]])).loss.backward()
model.save_pretrained(FOLDER)
again = models_torch.BigBirdForMaskedLM.from_pretrained(FOLDER)
assert torch.equal(again(torch.tensor([[3, 4]])).logits, model(torch.tensor([[3, 4]])).logits)
"""
)
IN_FLAX = (
    MODELS
    + """
import models_flax, models_flax.training
model = models_flax.FlaxBigBirdForMaskedLM(config)
model.save_pretrained(FOLDER)
again = models_flax.FlaxBigBirdForMaskedLM.from_pretrained(FOLDER)
ids = np.array([[3, 4]])
assert (again(ids).logits == model(ids).logits).all()
"""
)


@pytest.mark.parametrize(("blocked", "program"), [(FLAX, IN_TORCH), (TORCH, IN_FLAX)], ids=["torch", "flax"])
def test_one_framework_is_enough_for_its_models(blocked, program, tmp_path):
    lacking = "torch" if blocked == TORCH else "flax"
    parity = COMMANDS % (("parity",),)
    printed = without(blocked, program.replace("FOLDER", repr(str(tmp_path / "model"))) + parity)
    code, said = json.loads(printed.splitlines()[-1])["parity"]
    assert code == 2
    assert said.endswith(f"not installed: pip install 'bigbird-port[{lacking}]'\n")


def test_what_is_installed_is_not_asked_for(monkeypatch):
    need("this", "json", "re")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ModuleNotFoundError, match="^this needs torch, which is not installed") as found:
        need("this", "json", "torch")
    assert found.value.name == "torch"


def test_an_error_of_another_module_is_not_hidden():
    run = COMMANDS % (["schema"],)
    with pytest.raises(AssertionError, match="No module named|halted"):
        without({"click"}, run)
    code, said = run_without({"ml_dtypes"}, f"inspect {DEMO}")[f"inspect {DEMO}"]
    assert (code, said) == (1, "")


def test_every_extra_is_one_of_the_projects():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(EXTRAS.values()) <= declared["optional-dependencies"].keys()
    names = {re.split(r"[>=<\[]", line)[0] for line in declared["dependencies"]}
    assert not names & (EXTRAS.keys() | {"orbax-checkpoint"})


def test_the_version_tells_the_stack_at_once():
    """The best of five, as the machine may be busy."""
    run = "from bigbird_port.cli import main; main(['--version'], standalone_mode=False)\nimport sys\n"
    run += "assert not sys.modules.keys() & {'torch', 'jax', 'flax', 'numpy', 'transformers'}"
    times = []
    for _ in range(5):
        start = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", run], check=True, capture_output=True, text=True)
        times.append(time.perf_counter() - start)
    assert min(times) < 0.5
    lines = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    assert list(lines) == ["bigbird-port", "python", *STACK]
    assert lines["bigbird-port"] == bigbird_port.__version__
    assert lines["numpy"] == importlib.metadata.version("numpy")


def test_the_version_says_what_is_not_installed(monkeypatch):
    from bigbird_port import installed

    monkeypatch.setattr(installed, "STACK", ("numpy", "no-such-package"))
    assert installed.stack().splitlines()[-1] == "no-such-package not installed"
