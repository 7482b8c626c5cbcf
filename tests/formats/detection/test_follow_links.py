"""Links that lead out of the source's folder: refused with the option's name, and followed with it."""

import json
import os

import pytest
from click.testing import CliRunner

from bigbird_port.cli import main
from bigbird_port.formats.links import check_link, following_links
from bigbird_port.formats.open_store import open_store
from tests.conftest import DEMO

SHARD = "model.ckpt-30.data-00000-of-00001"


@pytest.fixture
def linked(tmp_path):
    """A checkpoint whose large file is a link into a store by content, as hubs' old folders have it."""
    folder, store = tmp_path / "model", tmp_path / "store"
    folder.mkdir()
    store.mkdir()
    for file in DEMO.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / SHARD).rename(store / "4d7a")
    (folder / SHARD).symlink_to(store / "4d7a")
    return folder


def run(*arguments):
    return CliRunner().invoke(main, [*map(str, arguments)])


def test_the_refusal_names_the_option(linked, tmp_path):
    out = tmp_path / "out"
    for command in (("convert", linked, out), ("inspect", linked), ("diff", linked, linked)):
        result = run(*command)
        assert result.exit_code == 2
        assert f"{linked / SHARD}: a link that leads out of its folder, to " in result.output
        assert "--follow-links" in result.output
    assert not out.exists()


def test_with_the_option_links_are_followed(linked, tmp_path):
    out = tmp_path / "out"
    assert run("convert", linked, out, "--follow-links", "--quiet").exit_code == 0
    files = json.loads((out / "manifest.json").read_text())["source"]["files"]
    assert SHARD in [file["name"] for file in files]  # the link's name, not what it leads to
    assert run("inspect", linked, "--follow-links").exit_code == 0
    assert run("diff", linked, DEMO, "--follow-links").exit_code == 0
    assert run("verify", out, "--source", linked, "--follow-links").exit_code == 0
    assert run("verify", out, "--source", linked).exit_code != 0
    with pytest.raises(ValueError, match="leads out of its folder"):  # and not beyond the command
        open_store(linked)


def test_what_a_link_leads_to_must_be_a_file(linked, tmp_path):
    (linked / SHARD).unlink()
    os.mkfifo(tmp_path / "pipe")
    (linked / SHARD).symlink_to(tmp_path / "pipe")
    for arguments in ((), ("--follow-links",)):
        result = run("inspect", linked, *arguments)
        assert result.exit_code == 2
        assert SHARD in result.output


def test_following_ends_with_its_block(linked):
    with following_links(), following_links():
        check_link(linked / SHARD)
    with pytest.raises(ValueError, match="--follow-links"):
        check_link(linked / SHARD)
