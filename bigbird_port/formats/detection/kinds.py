"""The kinds of file that people bring, told by their first bytes: one table, in the order in which it is asked.

A name is a hint alone: it decides only where the bytes tell nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from bigbird_port.formats.detection.archives import inflated, tar_names, weights_among, zip_start
from bigbird_port.formats.detection.first_bytes import Start
from bigbird_port.formats.limits import MAX_HEADER_BYTES

Reader = Literal["safetensors", "torch", "flax"]
_TORCH_MAGIC = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19"  # of what torch wrote before release 1.6, a number in a pickle
_PICKLE = re.compile(rb"\x80[\x02-\x05]", re.DOTALL)
_CLASS = re.compile(rb"\x80[\x02-\x05](?:\x95.{8})?(?:\(X\x06\0\0\0module)?c([\w.]{1,100})\n(\w{1,100})\n", re.DOTALL)
_PICKLE_BYTES = 1 << 16
_HARMLESS = ("collections", "torch", "torch._utils")  # modules whose things a dict of weights may begin with


@dataclass(frozen=True)
class Kind:
    """A kind of file. found: what it is, after "found"; next_step: what to do, after a colon.

    is_one: tells it by its first bytes. reader: what reads it, where something does. stand_in: whether it stands in
    place of a file that was meant, so that even what has no fixed beginning, such as a vocabulary, is never this.
    """

    found: str | Callable[[Start], str]
    is_one: Callable[[Start], bool]
    next_step: str | Callable[[Start], str] = ""
    reader: Reader | None = None
    stand_in: bool = False


def tell(start: Start) -> Kind | None:
    """Return what kind of file this is, or None where its first bytes are of no kind that is known."""
    return next((kind for kind in KINDS if kind.is_one(start)), None)


def refusal(start: Start, kind: Kind, expected: str = "weights") -> str:
    """Why a file of this kind is not read, in a sentence that names it and the next step."""
    found = kind.found if isinstance(kind.found, str) else kind.found(start)
    next_step = kind.next_step if isinstance(kind.next_step, str) else kind.next_step(start)
    return f"{start.path}: expected {expected}, found {found}: {next_step}"


def begins(*magics: bytes) -> Callable[[Start], bool]:
    """A test whether a file begins with one of several magic numbers."""
    return lambda start: start.data.startswith(magics)


def _text(pattern: str) -> Callable[[Start], bool]:
    wanted = re.compile(pattern, re.IGNORECASE)
    return lambda start: bool((text := start.text) and wanted.match(text))


def _pointed(start: Start) -> str:
    size = re.search(rb"^size (\d{1,20})$", start.data, re.MULTILINE)
    meant = f" in place of one of {size[1].decode()}" if size else ""
    return f"a git-lfs pointer of {start.size} bytes{meant}"


def _quoted(what: str) -> Callable[[Start], str]:
    def found(start: Start) -> str:
        line = next((line for line in (start.text or "").splitlines() if line.strip()), "").strip()
        return f"{what} of {start.size} bytes, {line[:60]!r}{'...' if len(line) > 60 else ''}"

    return found


# Zips: torch's own, and what other programs keep in one.


def _zip(test: Callable[[list[str]], bool]) -> Callable[[Start], bool]:
    return lambda start: start.members is not None and test(start.members)


def _cut_zip(start: Start) -> bool:
    return start.is_zip and start.members is None


def _ends(names: list[str], *ends: str) -> bool:
    return any(name == end or name.endswith(f"/{end}") for name in names for end in ends)


def _zip_contents(start: Start) -> str:
    return f"a zip archive{weights_among(start.members or [])}"


# Pickles: dicts of weights, and whole models, which name a class of the program that wrote them.


def _pickled(start: Start) -> bytes:
    """The beginning of the pickle in a torch file; empty where it is none."""
    if start.is_zip:
        member = next((name for name in start.members or [] if name.endswith("data.pkl")), None)
        return zip_start(start.path, member, _PICKLE_BYTES) if member else b""
    return start.data if _PICKLE.match(start.data) else b""


def _pickled_class(start: Start) -> str | None:
    """The class whose object a pickle begins with, if it is none that weights need."""
    found = [(module.decode(), name.decode()) for module, name in _CLASS.findall(_pickled(start)[: len(start.data)])]
    return next((f"{module}.{name}" for module, name in found if module not in _HARMLESS), None)


def _is_pickle(start: Start) -> bool:
    return len(start.data) > 1 and bool(_PICKLE.match(start.data))


# Other formats whose beginning has no magic number.


def _is_safetensors(start: Start) -> bool:
    length = int.from_bytes(start.data[:8], "little")
    return bool(re.match(rb'\{\s*["}]', start.data[8:])) and 2 <= length <= MAX_HEADER_BYTES


def _is_msgpack(start: Start) -> bool:
    """A map whose first key is a string, or an empty one."""
    data = start.data
    if not data or not (0x80 <= data[0] <= 0x8F or data[0] in (0xDE, 0xDF)):
        return False
    key = data[{0xDE: 3, 0xDF: 5}.get(data[0], 1) :][:1]
    return start.size == 1 or bool(key and (0xA0 <= key[0] <= 0xBF or 0xD9 <= key[0] <= 0xDB))


def _message(pattern: bytes) -> Callable[[Start], bool]:
    """A test of the first fields of a protobuf message."""
    wanted = re.compile(pattern, re.DOTALL)
    return lambda start: bool(wanted.match(start.data))


_ARCHIVE = "unpack it and give the folder or file in it"
_AGAIN = "fetch it again"
_FETCH = (
    "what was fetched is an answer of the server, not the file: look at the address and the login, and fetch it again"
)
_FLOAT = "give the model that it was made from, in float32, bfloat16 or float16"

KINDS: tuple[Kind, ...] = (
    # First, because a header's length may begin as a pickle, a zip or an archive does.
    Kind("safetensors", _is_safetensors, reader="safetensors"),
    Kind(
        _pointed,
        begins(b"version https://git-lfs.github.com/spec/"),
        "run 'git lfs pull' in its folder, or download the file itself",
        stand_in=True,
    ),
    Kind(
        "a pointer of git-annex",
        begins(b"/annex/objects/", b"../.git/annex/"),
        "run 'git annex get' in its folder",
        stand_in=True,
    ),
    Kind("a pointer of git-xet", begins(b"# xet version"), "run 'git xet pull' in its folder", stand_in=True),
    Kind(
        _quoted("a web page"), _text(r"\s*(<!--.*?-->\s*)?<(!doctype\s+html|html|head|body)\b"), _FETCH, stand_in=True
    ),
    Kind(_quoted("an XML message"), _text(r"\s*<(\?xml|Error>|Code>)"), _FETCH, stand_in=True),
    Kind(
        _quoted("an error message in JSON"),
        _text(r'\s*\{\s*"(error|errors|message|detail|statusCode|status|code|__type)"\s*:'),
        _FETCH,
        stand_in=True,
    ),
    Kind(
        _quoted("an error message"),
        _text(
            r"\s*((40[0-9]|50[0-9])[:\s]|not found|entry not found|access denied|forbidden|unauthorized|"
            r"invalid (username|credentials)|repository not found|too many requests|no such)"
        ),
        _FETCH,
        stand_in=True,
    ),
    Kind("an empty file (0 bytes)", lambda start: not start.size, f"its copy or download did not begin: {_AGAIN}"),
    Kind(
        "an HDF5 file (weights of Keras, as .h5 and .weights.h5 are)",
        lambda start: b"\x89HDF\r\n\x1a\n" in (start.data[:8], start.data[512:520]),
        "HDF5 is not read; give the same model's TensorFlow checkpoint, SavedModel, torch or Flax files, or save one "
        "from Keras (tf.train.Checkpoint, model.export)",
    ),
    Kind(
        "a Keras archive (a zip with config.json and model.weights.h5)",
        _zip(lambda names: _ends(names, "model.weights.h5")),
        "Keras' own format is not read; load it with keras.models.load_model and save a SavedModel (model.export)",
    ),
    Kind(
        "NumPy arrays (an .npz archive)",
        _zip(lambda names: bool(names) and all(name.endswith(".npy") for name in names)),
        "NumPy's archives are not read; save the arrays with safetensors.numpy.save_file as model.safetensors, under "
        "the names of transformers, with config.json beside it",
    ),
    Kind("one NumPy array (.npy)", begins(b"\x93NUMPY"), "one array is no model; give the file of the whole model"),
    Kind(
        "a program of TorchScript (torch.jit.save)",
        _zip(lambda names: _ends(names, "constants.pkl") or any("/code/" in name for name in names)),
        "it is never run; save its weights alone: torch.save(torch.jit.load(FILE).state_dict(), 'pytorch_model.bin')",
    ),
    Kind(
        "a program of torch.export (.pt2)",
        _zip(lambda names: _ends(names, "archive_format", "serialized_exported_program.json")),
        "it is never run; save its weights alone: torch.save(torch.export.load(FILE).state_dict, 'pytorch_model.bin')",
    ),
    Kind(
        lambda start: f"a whole object of the class {_pickled_class(start)}, which would run a program",
        lambda start: _pickled_class(start) is not None,
        "it holds more than weights, and was not executed; where it can be loaded, save the weights alone: "
        "torch.save(model.state_dict(), 'pytorch_model.bin'), or model.save_pretrained(FOLDER)",
    ),
    Kind(
        "weights that torch quantised",
        lambda start: b"_rebuild_qtensor" in _pickled(start) or b"ctorch\nqint8\n" in _pickled(start),
        _FLOAT,
    ),
    Kind("torch's weights", _zip(lambda names: _ends(names, "data.pkl")), reader="torch"),
    Kind("torch's weights", lambda start: _is_pickle(start) and _TORCH_MAGIC in start.data[:40], reader="torch"),
    Kind(
        "a Python pickle that torch did not write",
        lambda start: _is_pickle(start) and not start.path.name.endswith((".bin", ".pt", ".pth", ".ckpt")),
        "a pickle could run any program, and was not executed; save the arrays as safetensors",
    ),
    Kind(
        lambda start: f"a torch file or zip archive that is truncated: it has {start.size} bytes, and its end is lost",
        _cut_zip,
        _AGAIN,
    ),
    Kind(_zip_contents, _zip(lambda names: True), f"an archive: {_ARCHIVE}"),
    Kind(
        lambda start: f"a tar archive{weights_among(tar_names(start.path))}",
        lambda start: start.data[257:262] == b"ustar",
        f"an archive: {_ARCHIVE}",
    ),
    Kind(
        "a tar archive, packed by gzip",
        lambda start: start.data[:2] == b"\x1f\x8b" and inflated(start.data, 512)[257:262] == b"ustar",
        f"an archive: {_ARCHIVE} (tar xzf FILE)",
    ),
    Kind("a file packed by gzip", begins(b"\x1f\x8b"), f"an archive: {_ARCHIVE} (gunzip FILE)"),
    Kind("a file packed by bzip2", begins(b"BZh"), f"an archive: {_ARCHIVE} (bunzip2 FILE)"),
    Kind("a file packed by xz", begins(b"\xfd7zXZ\0"), f"an archive: {_ARCHIVE} (unxz FILE)"),
    Kind("a file packed by zstd", begins(b"\x28\xb5\x2f\xfd"), f"an archive: {_ARCHIVE} (unzstd FILE)"),
    Kind("a 7z archive", begins(b"7z\xbc\xaf\x27\x1c"), f"an archive: {_ARCHIVE} (7z x FILE)"),
    Kind("a RAR archive", begins(b"Rar!\x1a\x07"), f"an archive: {_ARCHIVE} (unrar x FILE)"),
    Kind("quantised weights for llama.cpp (GGUF)", begins(b"GGUF", b"lmgg", b"fmgg", b"tjgg"), _FLOAT),
    Kind("a program of TensorFlow Lite", lambda start: start.data[4:8] == b"TFL3", _FLOAT),
    # Messages of protobuf: ONNX has its version and the producer's name first, a SavedModel its version and a graph
    # that begins with what it says of itself, a GraphDef a node with its name and operation.
    Kind(
        "a program of ONNX",
        _message(rb"\x08[\x01-\x20](\x12[\x00-\x40][\x20-\x7e]*[\x1a\x22\x28\x32\x3a\x42]|\x3a.{1,5}[\x0a\x12])"),
        "the weights in it have lost their names; give the model that it was made from",
    ),
    Kind(
        "the program of a SavedModel",
        _message(rb"\x08\x01\x12.{1,5}\x0a"),
        "give its folder, with the folder variables in it",
    ),
    Kind(
        "a graph of TensorFlow (GraphDef, as a frozen .pb is)",
        _message(rb"\x0a.{1,5}\x0a[\x01-\x7f][\x20-\x7e]+\x12[\x01-\x40][A-Z][A-Za-z0-9]+"),
        "give the checkpoint (model.ckpt-N.index and .data-*) or the SavedModel that it was frozen from",
    ),
    Kind("Flax's weights (msgpack)", _is_msgpack, reader="flax"),
    Kind(
        lambda start: f"nothing but zeros in the first {len(start.data)} of its {start.size} bytes",
        lambda start: start.size >= 64 and not start.data.strip(b"\0"),
        f"its download was prepared, but did not end: {_AGAIN}",
    ),
    Kind(_quoted("a JSON text"), _text(r"\s*[\[{]"), "give the weight file, or the folder that holds it"),
    Kind(
        _quoted("a text"),
        lambda start: start.text is not None,
        "it is not a weight file; give that, or the folder that holds it",
    ),
)
