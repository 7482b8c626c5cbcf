"""What --overwrite replaces, as a table: OUT that convert wrote, and nothing of the user's."""

import os
import re
import shutil
import subprocess

import pytest
from click.testing import CliRunner

from bigbird_port.cli import main
from bigbird_port.conversion.convert import Settings, convert
from bigbird_port.conversion.manifest import MANIFEST
from tests.conftest import DEMO


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("written")
    convert(DEMO, folder / "out", Settings(to=("torch", "flax")))
    return folder / "out"


@pytest.fixture
def place(written, tmp_path):
    """A folder with a source, and what convert made of it."""
    shutil.copytree(DEMO, tmp_path / "source")
    shutil.copytree(written, tmp_path / "out")
    return tmp_path


def everything(folder):
    """All names, and what files hold and links say."""
    found = {}
    for path in sorted(folder.rglob("*")):
        what = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None
        found[str(path.relative_to(folder))] = what
    return found


def run(source, out, *options):
    return CliRunner().invoke(main, ["convert", str(source), str(out), "--overwrite", *options])


def moved_into_source(place):
    shutil.move(place / "out", place / "source/out")


def moved_into_source_through_a_link(place):
    moved_into_source(place)
    (place / "link").symlink_to(place / "source")


def source_in_out(place):
    shutil.move(place / "source", place / "out/torch/source")


def source_linked_from_out(place):
    shutil.move(place / "source", place / "out/source")
    (place / "source").symlink_to(place / "out/source")


def source_of_links_into_out(place):
    shutil.rmtree(place / "source")
    (place / "source").mkdir()
    for name in ("config.json", "model.safetensors"):
        (place / "source" / name).symlink_to(place / "out/torch" / name)


def shard_of_the_source_in_out(place):
    moved = place / "out/torch/model.ckpt-30.data-00000-of-00001"
    shutil.move(place / "source/model.ckpt-30.data-00000-of-00001", moved)
    (place / "source/model.ckpt-30.data-00000-of-00001").symlink_to(moved)


def edited_manifest(place):
    path = place / "out" / MANIFEST
    path.write_text(path.read_text().replace('"init_seed": 0', '"init_seed": 1'))


def left_over_as_source(place):
    shutil.move(place / "out", place / ".out.partial")


# What was done to the folder; SOURCE and OUT; what the refusal says.
REFUSED = {
    "OUT is SOURCE": (None, "out", "out", "it is the source"),
    "OUT is SOURCE, spelled otherwise": (None, "out", "source/../out/.", "it is the source"),
    "OUT is SOURCE, a checkpoint": (None, "source", "source", "it is the source"),
    "OUT holds SOURCE": (source_in_out, "out/torch/source", "out", "it holds the source"),
    "OUT holds SOURCE, its own target": (None, "out/torch", "out", "it holds the source"),
    "OUT holds SOURCE, a file": (None, "out/torch/model.safetensors", "out", "it holds the source"),
    "OUT holds SOURCE, a prefix": (None, "source/model.ckpt-30", "source", "it holds the source"),
    "OUT holds SOURCE, to which a link leads": (source_linked_from_out, "source", "out", "it holds the source"),
    "OUT is above SOURCE": (None, "source", ".", "it holds the source"),
    "OUT lies in SOURCE": (moved_into_source, "source", "source/out", "it lies in the source"),
    "OUT lies in SOURCE, through a link": (moved_into_source_through_a_link, "link", "source/out", "it lies in"),
    "SOURCE lies in SOURCE through a link in OUT's path": (
        moved_into_source_through_a_link,
        "source",
        "link/out",
        "it lies in",
    ),
    "files of SOURCE are links into OUT": (
        source_of_links_into_out,
        "source",
        "out",
        "leads out of its folder|lies in",
    ),
    "a shard of SOURCE is a link into OUT": (shard_of_the_source_in_out, "source", "out", "would remove|leads out"),
    "notes": (lambda place: (place / "out/notes").write_text("x"), "source", "out", "notes is not listed"),
    "notes in a target": (
        lambda place: (place / "out/torch/notes").write_text("x"),
        "source",
        "out",
        "torch/notes is not listed",
    ),
    "an empty folder": (
        lambda place: (place / "out/mine").mkdir(),
        "source",
        "out",
        r"mine is not listed \(a folder\)",
    ),
    "a link": (lambda place: (place / "out/link").symlink_to("/etc"), "source", "out", "link is a link"),
    "a pipe": (lambda place: os.mkfifo(place / "out/pipe"), "source", "out", "pipe is not listed"),
    "a pipe in place of a file": (
        lambda place: ((place / "out/torch/config.json").unlink(), os.mkfifo(place / "out/torch/config.json")),
        "source",
        "out",
        "torch/config.json is not a regular file",
    ),
    "a link in place of a file": (
        lambda place: (
            shutil.move(place / "out/torch/config.json", place / "mine"),
            (place / "out/torch/config.json").symlink_to(place / "mine"),
        ),
        "source",
        "out",
        "torch/config.json is a link",
    ),
    "no manifest": (
        lambda place: (place / "out" / MANIFEST).unlink(),
        "source",
        "out",
        "no manifest.json of convert's",
    ),
    "another program's manifest": (
        lambda place: (
            shutil.rmtree(place / "out/torch"),
            shutil.rmtree(place / "out/flax"),
            (place / "out" / MANIFEST).write_text('{"manifest_version": 3}'),
        ),
        "source",
        "out",
        "no manifest.json of convert's",
    ),
    "a changed manifest": (edited_manifest, "source", "out", "changed after it was written"),
    "a damaged manifest": (lambda place: (place / "out" / MANIFEST).write_text("{"), "source", "out", "cannot be read"),
    "git": (lambda place: (place / "out/.git").mkdir(), "source", "out", r"is a repository \(\.git is in it\)"),
    "git's file": (lambda place: (place / "out/.git").write_text("gitdir: x"), "source", "out", "is a repository"),
    "mercurial": (lambda place: (place / "out/.hg").mkdir(), "source", "out", "is a repository"),
    "subversion": (lambda place: (place / "out/.svn").mkdir(), "source", "out", "is a repository"),
    "OUT is a link": (
        lambda place: (place / "link").symlink_to(place / "out"),
        "source",
        "link",
        "is a symbolic link",
    ),
    "OUT is a link, with a slash": (
        lambda place: (place / "link").symlink_to(place / "out"),
        "source",
        "link/",
        "is a symbolic link",
    ),
    "a target of another OUT": (None, "source", "out/torch", "lies in .*/out, which convert wrote"),
    "something new in another OUT": (None, "source", "out/new", "lies in .*/out, which convert wrote"),
    "something new deep in another OUT": (None, "source", "out/torch/a/b/c/d", "lies in .*/out, which convert wrote"),
    "something new in SOURCE, which convert wrote": (None, "out", "out/new", "lies in .*/out, which convert wrote"),
    "something new in another OUT, through a link": (
        lambda place: (place / "link").symlink_to(place / "out/torch"),
        "source",
        "link/new",
        "lies in .*/out, which convert wrote",
    ),
    "SOURCE is what was left over": (left_over_as_source, ".out.partial", "out", "clears that away"),
    "SOURCE lies in what was left over": (left_over_as_source, ".out.partial/torch", "out", "clears that away"),
}


@pytest.mark.parametrize("dry", [False, True])
@pytest.mark.parametrize("case", REFUSED)
def test_refused_and_nothing_touched(place, monkeypatch, case, dry):
    change, source, out, message = REFUSED[case]
    if change:
        change(place)
    before = everything(place)
    result = run(f"{place}/{source}", f"{place}/{out}", *(["--dry-run"] if dry else []))
    assert result.exit_code == 2, result.output
    assert not isinstance(result.exception, ValueError)
    assert re.search(message, result.output), result.output
    assert everything(place) == before


@pytest.mark.parametrize(("inside", "out"), [("out", "."), ("out/torch", ".."), ("out", "../out")])
def test_the_folder_that_one_is_in_is_refused(place, monkeypatch, inside, out):
    monkeypatch.chdir(place / inside)
    before = everything(place)
    result = run(place / "source", out)
    assert result.exit_code == 2
    assert "the folder that you are in" in result.output
    assert everything(place) == before


def test_a_mount_point_is_refused(place):
    for mounted in ("out", "out/torch"):
        done = subprocess.run(["mount", "--bind", place / mounted, place / mounted], capture_output=True)
        if done.returncode:
            pytest.skip(f"nothing can be mounted here: {done.stderr.decode().strip()}")
        try:
            result = run(place / "source", place / "out")
        finally:
            subprocess.run(["umount", place / mounted], check=True)
        assert result.exit_code == 2
        assert "is or holds a mount point" in result.output


ALLOWED = {
    "what convert wrote": (None, "out"),
    "with a slash": (None, "out/"),
    "spelled otherwise": (None, "source/../out"),
    "through a link in its path": (lambda place: (place / "link").symlink_to(place), "link/out"),
    "half of it, as files were lost": (lambda place: shutil.rmtree(place / "out/flax"), "out"),
    "an empty folder": (lambda place: (place / "new").mkdir(), "new"),
    "nothing": (None, "new"),
    "nothing, beside the source's files": (None, "source/new"),
}


@pytest.mark.parametrize("case", ALLOWED)
def test_replaced(place, case):
    change, out = ALLOWED[case]
    if change:
        change(place)
    source = everything(place / "source")
    result = run(place / "source/model.ckpt-30", f"{place}/{out}", "--to", "torch")
    assert result.exit_code == 0, result.output
    names = sorted(path.name for path in (place / out).iterdir())
    assert names == [MANIFEST, "torch"]
    assert source.items() <= everything(place / "source").items()
    assert CliRunner().invoke(main, ["verify", f"{place}/{out}"]).exit_code == 0
    assert not list(place.rglob(".*"))


def test_an_empty_folder_needs_no_overwrite(place):
    (place / "new").mkdir()
    assert CliRunner().invoke(main, ["convert", str(DEMO), str(place / "new"), "--to", "torch"]).exit_code == 0
    result = CliRunner().invoke(main, ["convert", str(DEMO), str(place / "new"), "--to", "torch"])
    assert result.exit_code == 2
    assert "exists already" in result.output
