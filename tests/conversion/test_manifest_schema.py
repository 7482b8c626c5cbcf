"""docs/manifest.schema.json describes the manifests that are written, and no others."""

import copy
import json

import numpy as np
import pytest

from bigbird_port.conversion.convert import Settings, convert
from bigbird_port.conversion.exports import EXPORTS
from bigbird_port.conversion.manifest import MANIFEST_VERSION
from bigbird_port.conversion.targets import TARGETS, Choices
from bigbird_port.families.bigbird.heads import HEADS
from bigbird_port.formats.safetensors.neutral import SCHEMA_VERSION as NEUTRAL_VERSION
from bigbird_port.schema.table import SCHEMA_VERSION
from tests.conftest import DEMO, ROOT
from tests.conversion.brought.sources import numbered, rewrite, write_torch
from tests.vocabulary import train_vocabulary

jsonschema = pytest.importorskip("jsonschema", reason="the witness of the manifest's schema")
SCHEMA = json.loads((ROOT / "docs/manifest.schema.json").read_text())


def errors(manifest):
    validator = jsonschema.Draft202012Validator(SCHEMA)
    return ["/".join(map(str, error.path)) or error.message for error in validator.iter_errors(manifest)]


@pytest.fixture(scope="module")
def manifests(tmp_path_factory):
    """One of every kind, by name."""
    folder = tmp_path_factory.mktemp("manifests")
    source = write_torch(folder / "source", numbered())
    (source / "spiece.model").write_bytes(train_vocabulary())

    def break_values(arrays):
        arrays["bert.pooler.bias"][0] = np.nan
        arrays["bert.pooler.weight"][:] = 2

    broken = rewrite(write_torch(folder / "broken", numbered()), break_values)
    kinds = {
        "all targets": (source, Settings(to=TARGETS, choices=Choices(max_shard_size=8000))),
        "orbax": (source, Settings(to=("flax",), choices=Choices(flax_format="orbax"))),
        "bfloat16": (source, Settings(dtype="bfloat16", head="qa", seed=3)),
        "extended": (source, Settings(max_position_embeddings=700)),
        "findings": (broken, Settings(allow_nonfinite=True)),
        "no checksums": (DEMO, Settings(checksums=False)),
    }
    made = {}
    for name, (path, settings) in kinds.items():
        convert(path, folder / name, settings)
        made[name] = json.loads((folder / name / "manifest.json").read_text())
    return made


KINDS = ("all targets", "orbax", "bfloat16", "extended", "findings", "no checksums")


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_fits(manifests, kind):
    assert errors(manifests[kind]) == []


def test_the_manifests_are_what_they_are_named(manifests):
    assert set(manifests) == set(KINDS)
    assert set(manifests["all targets"]["targets"]) == set(TARGETS)
    assert manifests["all targets"]["vocabulary"]["name"] == "spiece.model"
    assert any("/" in record["name"] for record in manifests["orbax"]["targets"]["flax"]["files"])
    how = {entry["how"] for entry in manifests["bfloat16"]["tensors"].values()}
    assert how == {"converted", "initialise"}
    assert {finding["kind"] for finding in manifests["findings"]["findings"]} == {"nonfinite", "constant"}


def test_the_schema_is_one_and_names_what_the_code_does():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    properties = SCHEMA["properties"]
    assert properties["manifest_version"]["const"] == MANIFEST_VERSION
    assert properties["schema_version"]["const"] == SCHEMA_VERSION == int(NEUTRAL_VERSION)
    assert properties["head"]["enum"] == list(HEADS)
    assert properties["targets"]["propertyNames"]["enum"] == [*TARGETS, *EXPORTS]


def described(node, path="schema"):
    """Every property, and whether it is described."""
    for name, value in node.get("properties", {}).items():
        yield f"{path}/{name}", "description" in value or "$ref" in value or path.endswith("config")
        yield from described(value, f"{path}/{name}")
    for name, value in node.get("$defs", {}).items():
        yield from described(value, f"{path}/{name}")


def test_every_property_is_described():
    found = dict(described(SCHEMA))
    assert len(found) > 25
    assert all(found.values()), [name for name, fine in found.items() if not fine]


MUTATIONS = {
    "no digest": lambda m: m.pop("digest"),
    "one more field": lambda m: m.update(more=1),
    "another version": lambda m: m.update(manifest_version=1),
    "no target": lambda m: m.update(targets={}),
    "an unknown target": lambda m: m["targets"].update(coreml=m["targets"]["torch"]),
    "a path that leads out": lambda m: m["targets"]["torch"]["files"][0].update(name="../config.json"),
    "an absolute path": lambda m: m["targets"]["torch"]["files"][0].update(name="/etc/passwd"),
    "a hash cut short": lambda m: m["targets"]["torch"]["files"][0].update(sha256="ab"),
    "a negative size": lambda m: m["source"]["files"][0].update(size=-1),
    "a fate of its own": lambda m: next(iter(m["source_names"].values())).update(fate="lost"),
    "a shape of floats": lambda m: m["tensors"]["pooler.bias"].update(shape=[8.5]),
    "no source where converted": lambda m: m["tensors"]["pooler.bias"].update(source=None),
    "a rounding that is none": lambda m: m["tensors"]["pooler.bias"].update(largest_rounding="0"),
    "an unknown head": lambda m: m.update(head="nose"),
}


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_manifest_that_was_changed_does_not_fit(manifests, mutation):
    changed = copy.deepcopy(manifests["all targets"])
    MUTATIONS[mutation](changed)
    assert errors(changed)


@pytest.mark.parametrize("name", ["a", "a/b.c", ".hidden", "a..b/c", "ocdbt.process_0/d/ab"])
def test_plain_paths_fit(manifests, name):
    changed = copy.deepcopy(manifests["all targets"])
    changed["targets"]["torch"]["files"][0]["name"] = name
    assert errors(changed) == []
