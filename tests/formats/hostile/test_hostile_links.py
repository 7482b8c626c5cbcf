"""Links and names that lead out of a folder."""

import os

import pytest
import safetensors
import safetensors.numpy

from bigbird_port.formats.open_store import open_store
from bigbird_port.formats.safetensors.reader import SafetensorsFile
from tests.formats.hostile.hostile import MIB, SHARDS, memory, refused
from tests.formats.hostile.stores import arrays, write_shards


def test_a_large_checkpoint_file_is_refused(tmp_path):
    (tmp_path / "checkpoint").write_bytes(bytes(MIB + 1))
    refused(open_store, tmp_path / "checkpoint", "checkpoint: it has more than 1048576 bytes")
    with memory(MIB), pytest.raises(ValueError, match="checkpoint: it has more than 1048576 bytes"):
        open_store(tmp_path)


@pytest.mark.parametrize("file", ["model.safetensors", "flax_model.msgpack", "model.index", "config.json"])
def test_links_out_of_the_folder_are_refused(tmp_path, file):
    folder = tmp_path / "folder"
    folder.mkdir()
    safetensors.numpy.save_file(arrays(), folder / "model.safetensors")
    if file != "config.json":
        (folder / "model.safetensors").unlink()
    (tmp_path / "secret").write_text("{}")
    (folder / file).symlink_to(tmp_path / "secret")
    with pytest.raises(ValueError, match=r"a link that leads out of its folder, to .*secret"):
        open_store(folder)


def test_shards_that_lead_out_of_the_folder_are_refused(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    write_shards(folder, "model.safetensors.index.json", SHARDS, safetensors.numpy.save_file)
    (folder / "one.safetensors").rename(tmp_path / "one.safetensors")
    (folder / "one.safetensors").symlink_to(tmp_path / "one.safetensors")
    with pytest.raises(ValueError, match="a link that leads out of its folder"):
        open_store(folder)


def test_links_within_the_folder_are_followed(tmp_path):
    safetensors.numpy.save_file(arrays(), tmp_path / "weights")
    (tmp_path / "model.safetensors").symlink_to("weights")
    assert len(open_store(tmp_path).store.tensors) == len(arrays())


def hub_cache(folder):
    """A model as Hugging Face's cache keeps it."""
    snapshot = folder / "models--a--b/snapshots/0123"
    blobs = folder / "models--a--b/blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    safetensors.numpy.save_file(arrays(), blobs / "digest")
    (blobs / "digest2").write_text("{}")
    (snapshot / "model.safetensors").symlink_to("../../blobs/digest")
    (snapshot / "config.json").symlink_to("../../blobs/digest2")
    return snapshot


def test_links_of_the_hub_cache_are_followed(tmp_path):
    opened = open_store(hub_cache(tmp_path))
    assert len(opened.store.tensors) == len(arrays())
    assert opened.config_file is not None


def test_links_out_of_the_hub_cache_are_refused(tmp_path):
    snapshot = hub_cache(tmp_path)
    safetensors.numpy.save_file(arrays(), tmp_path / "secret")
    (snapshot / "model.safetensors").unlink()
    (snapshot / "model.safetensors").symlink_to(tmp_path / "secret")
    with pytest.raises(ValueError, match="a link that leads out of its folder"):
        open_store(snapshot)
    # Nor by making the cache's own folder a link.
    (tmp_path / "models--a--b/blobs").rename(tmp_path / "elsewhere")
    (tmp_path / "models--a--b/blobs").symlink_to(tmp_path / "elsewhere")
    (snapshot / "model.safetensors").unlink()
    (snapshot / "model.safetensors").symlink_to("../../blobs/digest")
    with pytest.raises(ValueError, match="a link that leads out of its folder"):
        open_store(snapshot)


def test_links_in_circles_and_what_is_no_file(tmp_path):
    (tmp_path / "model.safetensors").symlink_to("model.safetensors")
    with pytest.raises(ValueError, match=r"model\.safetensors: cannot be read"):
        open_store(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    os.mkfifo(tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="not a regular file"):
        SafetensorsFile(tmp_path / "model.safetensors")


def test_a_neutral_file_says_so(tmp_path):
    safetensors.numpy.save_file(arrays(), tmp_path / "model.neutral.safetensors")
    with pytest.raises(ValueError, match="the format in its metadata is None: expected 'bigbird-port neutral'"):
        open_store(tmp_path)
