"""Every kind of file that people bring, under every name that it may have: told by its bytes, with the next step."""

import gzip
import io
import json
import pickle
import tarfile
import zipfile

import msgpack
import numpy as np
import pytest
import safetensors.numpy

from bigbird_port.formats.detection.first_bytes import Start
from bigbird_port.formats.detection.kinds import tell
from bigbird_port.formats.open_store import open_store
from tests.conftest import DEMO
from tests.formats.hostile.stores import arrays, assert_same

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"4d7a" * 16 + b"\nsize 512012345\n"
NAMES = ("model.safetensors", "pytorch_model.bin", "flax_model.msgpack", "weights", "model.ckpt")


def zipped(**members):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name, content in members.items():
            archive.writestr(name.replace("__", "/"), content)
    return data.getvalue()


def tarred():
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        info = tarfile.TarInfo("model/model.safetensors")
        info.size = 3
        archive.addfile(info, io.BytesIO(b"abc"))
    return data.getvalue()


def bytes_of(writer, *values, **named):
    data = io.BytesIO()
    writer(data, *values, **named)
    return data.getvalue()


WHOLE_MODEL = b"\x80\x02ctransformers.models.big_bird.modeling_big_bird\nBigBirdModel\nq\x00)\x81q\x01."
# bytes -> what is found, and the next step
REFUSED = {
    "git-lfs": (POINTER, r"a git-lfs pointer of \d+ bytes in place of one of 512012345: run 'git lfs pull'"),
    "git-annex": (b"/annex/objects/SHA256E-s5--00.bin\n", "a pointer of git-annex: run 'git annex get'"),
    "web page": (b"\n<!DOCTYPE html>\n<html><body>Sign in</body></html>", "a web page of .*fetch it again"),
    "bare page": (b"<html><head>", "a web page of .*fetch it again"),
    "XML": (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "an XML message of .*fetch it again"),
    "JSON error": (b'{"error":"Invalid username or password."}', "an error message in JSON of .*fetch it again"),
    "text error": (b"Entry not found", "an error message of 15 bytes, 'Entry not found': .*fetch it again"),
    "JSON": (b'{"hidden_size": 8}', "a JSON text of .*give the weight file"),
    "text": (b"words", "a text of 5 bytes, 'words': it is not a weight file"),
    "empty": (b"", r"an empty file \(0 bytes\): its copy or download did not begin: fetch it again"),
    "zeros": (bytes(5000), "nothing but zeros in the first 4096 of its 5000 bytes: .*fetch it again"),
    "zip": (zipped(model__model__safetensors=b"x"), "a zip archive: an archive: unpack it"),
    "zip with weights": (
        zipped(**{"a__model.safetensors": b"x"}),
        "a zip .*holds a/model.safetensors: an archive: unpack",
    ),
    "tar": (tarred(), r"a tar archive that holds model/model\.safetensors: an archive: unpack it"),
    "tar.gz": (gzip.compress(tarred()), "a tar archive, packed by gzip: an archive: unpack it"),
    "gzip": (gzip.compress(b"abc"), r"packed by gzip: an archive: unpack it .*gunzip"),
    "bzip2": (b"BZh91AY&SY", r"packed by bzip2: an archive: unpack it .*bunzip2"),
    "xz": (b"\xfd7zXZ\0\0\4", r"packed by xz: an archive: unpack it .*unxz"),
    "zstd": (b"\x28\xb5\x2f\xfd\x04", r"packed by zstd: an archive: unpack it .*unzstd"),
    "7z": (b"7z\xbc\xaf\x27\x1c\0\4", "a 7z archive: an archive: unpack it"),
    "HDF5": (b"\x89HDF\r\n\x1a\n" + bytes(8), "an HDF5 file .*HDF5 is not read; give the same model's"),
    "Keras": (zipped(**{"model.weights.h5": b"", "config.json": b"{}"}), "a Keras archive .*save a SavedModel"),
    "npz": (bytes_of(np.savez, a=np.ones(2)), "NumPy arrays .*not read; save the arrays with safetensors"),
    "npy": (bytes_of(np.save, np.ones(2)), "one NumPy array .*give the file of the whole model"),
    "TorchScript": (
        zipped(m__data__pkl=b"", **{"m__data.pkl": b"", "m__constants.pkl": b""}),
        "a program of TorchScript",
    ),
    "torch.export": (zipped(m__archive_format=b"pt2", m__data__weights=b""), r"a program of torch\.export"),
    "whole model": (
        zipped(**{"m__data.pkl": WHOLE_MODEL}),
        r"BigBirdModel, which would run .*torch\.save\(model\.state",
    ),
    "quantised by torch": (zipped(**{"m__data.pkl": b"\x80\x02ctorch._utils\n_rebuild_qtensor\n"}), "torch quantised"),
    "truncated zip": (zipped(**{"m__data.pkl": bytes(300)})[:200], "truncated: it has 200 bytes.*fetch it again"),
    "GGUF": (b"GGUF\3\0\0\0", r"quantised weights for llama\.cpp .*give the model that it was made from"),
    "TFLite": (b"\x1c\0\0\0TFL3", "a program of TensorFlow Lite"),
    "ONNX": (b"\x08\x08\x12\x07pytorch\x1a\x052.1.0:\x10" + bytes(16), "a program of ONNX: .*give the model that"),
    "SavedModel": (b"\x08\x01\x12\x20\x0a\x10" + bytes(30), "the program of a SavedModel: give its folder"),
    "GraphDef": (b"\x0a\x15\x0a\x03ids\x12\x0bPlaceholder" + bytes(8), "a graph of TensorFlow .*give the checkpoint"),
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", REFUSED)
def test_a_kind_is_told_whatever_the_name(tmp_path, kind, name):
    data, message = REFUSED[kind]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match=message) as caught:
        open_store(tmp_path / name)
    assert str(caught.value).startswith(f"{tmp_path / name}: expected weights, found ")


@pytest.mark.parametrize("kind", REFUSED)
def test_a_folder_names_the_file_in_it(tmp_path, kind):
    """The same in a folder: not only what is called as weights usually are."""
    data, message = REFUSED[kind]
    (tmp_path / "tf_model.h5").write_bytes(data)
    with pytest.raises(ValueError, match=r"tf_model\.h5: expected weights, found .*" + message):
        open_store(tmp_path)


def test_a_pickle_is_never_executed(tmp_path):
    (tmp_path / "weights.pkl").write_bytes(pickle.dumps({"a": [1.0]}))
    with pytest.raises(ValueError, match="a Python pickle that torch did not write: .*was not executed; save"):
        open_store(tmp_path / "weights.pkl")


def safetensors_bytes():
    return safetensors.numpy.save({"bert/matrix": arrays()["bert/matrix"]}, metadata={"format": "pt"})


def msgpack_bytes():
    values = arrays()["bert/matrix"]
    packed = msgpack.packb((list(values.shape), values.dtype.name, values.tobytes()))
    return msgpack.packb({"bert": {"matrix": msgpack.ExtType(1, packed)}})


def torch_bytes(is_zip=True):
    torch = pytest.importorskip("torch")
    values = {"bert/matrix": torch.from_numpy(arrays()["bert/matrix"].copy())}
    return bytes_of(lambda data: torch.save(values, data, _use_new_zipfile_serialization=is_zip))


READ = {
    "safetensors": (safetensors_bytes, "torch"),
    "torch": (torch_bytes, "torch"),
    "torch of old": (lambda: torch_bytes(is_zip=False), "torch"),
    "msgpack": (msgpack_bytes, "flax"),
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", READ)
def test_weights_are_read_under_any_name(tmp_path, kind, name):
    """The negative control of the refusals; and a note where the name says something else."""
    make, style = READ[kind]
    (tmp_path / name).write_bytes(make())
    opened = open_store(tmp_path / name)
    assert_same(opened.store, {"bert/matrix": arrays()["bert/matrix"]})
    assert opened.style == style
    meant = {"model.safetensors": "safetensors", "flax_model.msgpack": "msgpack"}.get(name, "torch")
    as_named = name == "weights" or kind.startswith(meant)
    assert bool(opened.notes) != as_named
    assert all(str(tmp_path / name) in note and "though its name says" in note for note in opened.notes)


def test_shards_are_read_by_their_bytes(tmp_path):
    index = tmp_path / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": {"bert/matrix": "one.bin"}}))
    (tmp_path / "one.bin").write_bytes(safetensors_bytes())
    opened = open_store(tmp_path)
    assert_same(opened.store, {"bert/matrix": arrays()["bert/matrix"]})
    assert len(opened.notes) == 1
    (tmp_path / "one.bin").write_bytes(POINTER)
    with pytest.raises(ValueError, match=r"one\.bin: expected weights, found a git-lfs pointer"):
        open_store(tmp_path)


def copy_of_demo(folder):
    folder.mkdir(exist_ok=True)
    for file in DEMO.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


@pytest.mark.parametrize(
    "file", ["model.ckpt-30.index", "model.ckpt-30.data-00000-of-00001", "pretrain.config", "checkpoint"]
)
@pytest.mark.parametrize("kind", ["git-lfs", "web page", "JSON error"])
def test_a_stand_in_for_any_file_of_a_checkpoint_is_named(tmp_path, file, kind):
    copy_of_demo(tmp_path)
    assert open_store(tmp_path).style == "original"
    data, message = REFUSED[kind]
    (tmp_path / file).write_bytes(data)
    with pytest.raises(ValueError, match=message) as caught:
        open_store(tmp_path)
    assert str(caught.value).startswith(str(tmp_path / file))


def test_a_stand_in_for_a_configuration_or_a_vocabulary_is_named(tmp_path):
    from bigbird_port.conversion.convert import Settings, make_plan

    source = copy_of_demo(tmp_path / "source")
    for file in ("config.json", "spiece.model"):
        (source / file).write_bytes(POINTER)
        with pytest.raises(ValueError, match=rf"{file}: expected a .*, found a git-lfs pointer"):
            make_plan(source)
        (source / file).rename(tmp_path / file)
    with pytest.raises(ValueError, match=r"config\.json: expected a configuration in JSON, found a git-lfs pointer"):
        make_plan(source, Settings(config_file=tmp_path / "config.json"))
    with pytest.raises(ValueError, match=r"spiece\.model: expected a SentencePiece vocabulary, found a git-lfs"):
        make_plan(source, Settings(vocab=tmp_path / "spiece.model"))
    assert make_plan(source)


@pytest.mark.parametrize("kind", ["git-lfs", "web page"])
def test_a_model_folder_names_a_stand_in_for_its_configuration(tmp_path, kind):
    from bigbird_port.models.folder import read_folder_config

    data, message = REFUSED[kind]
    (tmp_path / "config.json").write_bytes(data)
    with pytest.raises(ValueError, match=rf"config\.json: expected a JSON configuration, found {message}"):
        read_folder_config(tmp_path, "torch")
    (tmp_path / "config.json").write_bytes(b"{")
    with pytest.raises(ValueError, match=r"config\.json: expected a JSON configuration, but it cannot be read"):
        read_folder_config(tmp_path, "torch")


MAGICS = (b"\x80\x02", b"\x80\x04", b"\x1f\x8b", b"BZh", b"PK\3\4", b"\x82\xa5", b"\x0a\x04", b"\x08\x01\x12")
LENGTHS = (*range(52, 70_000), *(int.from_bytes(magic, "little") for magic in MAGICS))


def test_no_length_of_a_header_hides_safetensors(tmp_path):
    """The length is the file's first bytes: 896 begins as a pickle does, and 35615 as gzip does."""
    header = b'{"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]}'
    starts = [Start(tmp_path / "x", 10_000_000, length.to_bytes(8, "little") + header) for length in LENGTHS]
    assert {tell(start).reader for start in starts} == {"safetensors"}
    for magic in MAGICS:  # the control: another file's bytes after the same start are no safetensors
        kind = tell(Start(tmp_path / "x", 10_000_000, magic.ljust(8, b"\0") + b"no header"))
        assert kind is None or kind.reader != "safetensors"
