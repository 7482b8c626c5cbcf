"""Small trees of files as people have them, and the same damaged: for the fuzz runs of detection."""

import io
import json
import os
import random
import tarfile
import zipfile

import msgpack
import numpy as np
import safetensors.numpy

from tests.conftest import DEMO
from tests.formats.detection.whole_trees import Tree

NAMES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "model-00001-of-00002.safetensors",
    "model.fp16.safetensors",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "flax_model.msgpack",
    "model.neutral.safetensors",
    "adapter_model.safetensors",
    "adapter_config.json",
    "config.json",
    "bert_config.json",
    "pretrain.config",
    "checkpoint",
    "checkpoint_500",
    "model.ckpt-30.index",
    "model.ckpt-30.meta",
    "model.ckpt-30.data-00000-of-00001",
    "model.ckpt",
    "saved_model.pb",
    "variables.index",
    "variables.data-00000-of-00001",
    "spiece.model",
    "tf_model.h5",
    "m.keras",
    "params.npz",
    "model.onnx",
    "weights.pkl",
    "weights",
    "model.tar.gz",
    "_METADATA",
    "notes\n.txt",
    "ünï",
    "x" * 250,
    "main",
)
FOLDERS = (
    "",
    "checkpoint-500",
    "snapshots/0123",
    "refs",
    "variables",
    "orbax",
    "torch",
    "flax",
    "1",
    "a/b/c",
    "500/params",
)
TYPED = (
    "gs://bucket/model.ckpt-0",
    "gs:/bucket",
    "https://huggingface.co/a/b/resolve/main/model.safetensors",
    "hf://",
    "hf:///",
    "hf://models/",
    "file:///tmp",
    "owner/name",
    "a:/b",
    "x" * 5000,
    "\0",
    "*",
    "[",
    "..",
    ".",
    "/",
)


def seeds():
    """One file of every kind, as bytes."""
    array = {"bert/embeddings/word_embeddings": np.ones((2, 3), np.float32), "a": np.zeros(2, np.int8)}
    torch_names = {
        "bert.embeddings.word_embeddings.weight": np.ones((2, 3), np.float32),
        "bert.encoder.layer.0.attention.self.query.lora_A.default.weight": np.ones((2, 2), np.float16),
    }
    roberta = {"roberta.embeddings.word_embeddings.weight": np.ones((2, 3), np.float32)}
    flax = msgpack.packb({"params": {"bert": {"a": msgpack.ExtType(1, msgpack.packb(([2], "float32", bytes(8))))}}})
    yield from (safetensors.numpy.save(each, metadata={"format": "pt"}) for each in (array, torch_names, roberta, {}))
    yield from (flax, msgpack.packb({}), b"", b"\0" * 100, b"words\n", b"\x80", b"\x80\x02", b"PK\3\4", b"\x1f\x8b")
    yield from (path.read_bytes() for path in sorted(DEMO.iterdir()))
    yield b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 512012345\n"
    yield b"<!DOCTYPE html><html><body>404</body></html>"
    yield b'<?xml version="1.0"?><Error><Code>NoSuchKey</Code></Error>'
    yield b"\x89HDF\r\n\x1a\n" + bytes(600)
    yield b"GGUF" + bytes(20)
    yield b"\x08\x08\x12\x07pytorch\x1a\x052.1.0:\x10" + bytes(16)
    yield b"\x08\x01\x12\x20\x0a\x10" + bytes(30)
    yield b"\x0a\x10\x0a\x03ids\x12\x0bPlaceholder" + bytes(8)
    yield from (bytes.fromhex(start) + bytes(40) for start in ("fd377a585a00", "425a6839", "28b52ffd", "377abcaf271c"))
    for values in (
        {"error": "Invalid credentials"},
        {"model_type": "bert", "hidden_size": 8},
        {"model_type": "big_bird", "architectures": ["BigBirdForMaskedLM"], "hidden_size": 8, "num_attention_heads": 2},
        {"model_type": "encoder-decoder", "encoder": {"model_type": "big_bird"}},
        {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "pytorch_model.bin"}},
        {"weight_map": {"a": "model.safetensors"}},
        {"peft_type": "LORA"},
        {"model_type": ["x"]},
    ):
        yield json.dumps(values).encode()
    yield from _archives()
    yield from _torch_files()


def _archives():
    for names in (["model.safetensors"], ["a/data.pkl", "a/code/x"], ["m/data.pkl"], ["a.npy"], ["model.weights.h5"]):
        data = io.BytesIO()
        with zipfile.ZipFile(data, "w") as archive:
            for name in names:
                archive.writestr(name, b"\x80\x02cevil\nThing\n)\x81." + bytes(30))
        yield data.getvalue()
    for mode in ("w", "w:gz"):
        data = io.BytesIO()
        with tarfile.open(fileobj=data, mode=mode) as archive:
            archive.addfile(tarfile.TarInfo("model/pytorch_model.bin"), io.BytesIO())
        yield data.getvalue()


def _torch_files():
    import torch

    for is_zip in (True, False):
        for values in ({"bert.pooler.dense.weight": torch.ones(2, 3)}, {"model": {"a": torch.ones(1)}, "epoch": 1}):
            data = io.BytesIO()
            torch.save(values, data, _use_new_zipfile_serialization=is_zip)
            yield data.getvalue()


def damaged(rng: random.Random, data: bytes, others: list[bytes]) -> bytes:
    """The same bytes, or damaged in one of several ways."""
    way = rng.randrange(7)
    changed = bytearray(data)
    if way == 0:
        del changed[rng.randrange(len(changed) + 1) :]
    elif way == 1 and changed:
        for _ in range(rng.randrange(1, 9)):
            changed[rng.randrange(min(len(changed), 600))] = rng.randrange(256)
    elif way == 2 and changed:
        for _ in range(rng.randrange(1, 9)):
            changed[-rng.randrange(1, min(len(changed), 600) + 1)] = rng.choice((0, 1, 0x7F, 0x80, 0xFF))
    elif way == 3:
        other = rng.choice(others)
        at = rng.randrange(len(other) + 1)
        changed[:at] = other[:at]
    elif way == 4:
        at = rng.randrange(len(changed) + 1)
        changed[at:at] = rng.randbytes(rng.randrange(20))
    return bytes(changed)


def make_tree(rng: random.Random, root, corpus: list[bytes], wholes: list[Tree]):
    """Write a small tree below ``root`` and return a path to open: in it, beside it, or of another kind."""
    made = [root]
    if rng.randrange(4) == 0:  # a whole model in one of its wrappers, damaged here and there
        made += _write_whole(rng, root, corpus, rng.choice(wholes))
    if rng.randrange(8) == 0:  # a whole checkpoint, so that what lies beside it is met as well
        for file in DEMO.iterdir():
            (root / file.name).write_bytes(file.read_bytes())
            made.append(root / file.name)
    for _ in range(rng.randrange(1, 6)):
        folder = root / rng.choice(FOLDERS)
        path = folder / rng.choice(NAMES)
        if path.exists() or path.is_symlink() or not (folder.is_dir() or not folder.exists()):
            continue
        folder.mkdir(parents=True, exist_ok=True)
        if rng.randrange(20) == 0:
            os.symlink(rng.choice([*map(str, made), "nowhere", path.name, "/etc/passwd", ".."]), path)
        elif rng.randrange(40) == 0:
            os.mkfifo(path)
        elif rng.randrange(40) == 0:
            path.mkdir()
        else:
            path.write_bytes(damaged(rng, rng.choice(corpus), corpus))
        made += [folder, path]
    chosen = rng.choice(made)
    if rng.randrange(6) == 0:
        return chosen.with_name(chosen.name[: rng.randrange(1, len(chosen.name) + 1)]) / rng.choice(("", "absent"))
    if rng.randrange(12) == 0:
        return type(root)(rng.choice(TYPED))
    return chosen


def _write_whole(rng: random.Random, root, corpus: list[bytes], whole: Tree):
    if rng.randrange(3) == 0:
        root = root / rng.choice(FOLDERS)
    for name, data in whole.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(damaged(rng, data, corpus) if rng.randrange(8) == 0 else data)
    return [root, *(root / name for name in whole)]
