"""Where a model lies that from_pretrained is asked for: a folder, or a model of the hub, which is fetched."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bigbird_port.files.reading import is_there
from bigbird_port.schema.table import Framework

if TYPE_CHECKING:
    from bigbird_port.models.loading import Loading

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_HUB_OPTIONS = ("revision", "cache_dir", "token", "local_files_only", "force_download", "subfolder")
# What to fetch of a model of the hub: the first of these that it has.
_SAFETENSORS = ("*.safetensors", "*.safetensors.index.json")
_WEIGHTS: dict[Framework, tuple[tuple[str, ...], ...]] = {
    "torch": (_SAFETENSORS, ("pytorch_model*.bin", "pytorch_model.bin.index.json")),
    "flax": (("flax_model.msgpack",), _SAFETENSORS),
}


def find_model_folder(place: str | Path, framework: Framework, loading: Loading) -> Path:
    """Return the folder of a model.

    place: a folder, or the name of a model of the hub ("google/bigbird-roberta-base"), which huggingface_hub fetches.
    Raises ValueError that says what to run where neither is to be had, and for a TensorFlow checkpoint.
    """
    path = Path(place)
    if path.exists() or not _is_hub_name(str(place)):
        _refuse_tensorflow(path)
        return path / loading.subfolder
    return _fetched(str(place), framework, loading) / loading.subfolder


def fetched_config(name: str, options: dict[str, Any]) -> Path:
    """Return config.json of a model of the hub, and take huggingface_hub's arguments out of ``options``.

    Raises ValueError that says what to run where it is not to be had.
    """
    given = {option: options.pop(option) for option in _HUB_OPTIONS if option in options}
    missing = f"{name}: there is no such folder or file"
    if not _is_hub_name(name):
        raise ValueError(f"{missing}: give the folder of a model, or its config.json")
    missing += f": for a model of the hub run 'hf download {name} config.json --local-dir FOLDER', then give FOLDER"
    try:
        import huggingface_hub

        return Path(huggingface_hub.hf_hub_download(name, "config.json", **given))
    except ImportError:
        raise ValueError(f"{missing}, or run 'pip install huggingface_hub', which fetches it by itself") from None
    except (OSError, ValueError) as error:  # every error of huggingface_hub is one of these
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(f"{missing} (huggingface_hub says: {type(error).__name__}: {reason})") from None


def _is_hub_name(place: str) -> bool:
    """Whether a path that is not there is rather a model's name."""
    return _HUB_NAME.fullmatch(place) is not None and not Path(place).parent.exists()


def _refuse_tensorflow(path: Path) -> None:
    indexes = list(path.glob("*.index")) if path.is_dir() else [Path(f"{path}.index")]
    here = path.is_dir() and any(is_there(path / name) for name in ("checkpoint", "saved_model.pb"))
    models = [path / "config.json", *path.glob("*/config.json")] if path.is_dir() else []
    if (here or any(is_there(index) for index in indexes)) and not any(is_there(model) for model in models):
        raise ValueError(
            f"{path}: this is a TensorFlow checkpoint, which from_pretrained does not read: run "
            f"'bigbird-port convert {path} OUT', then load OUT"
        )


def _fetched(name: str, framework: Framework, loading: Loading) -> Path:
    """The snapshot of a model of the hub; its configuration and the first kind of weights that it has."""
    missing = (
        f"{name}: there is no such folder: for a model of the hub run 'hf download {name} --local-dir FOLDER' where "
        "there is a connection, then load FOLDER"
    )
    try:
        import huggingface_hub
    except ImportError:
        raise ValueError(f"{missing}, or run 'pip install huggingface_hub', which fetches it by itself") from None
    options: dict[str, Any] = {
        "revision": loading.revision,
        "cache_dir": loading.cache_dir,
        "token": loading.token,
        "local_files_only": loading.local_files_only,
        "force_download": loading.force_download,
    }
    try:
        for weights in _WEIGHTS[framework]:
            if loading.use_safetensors is not None and loading.use_safetensors != (weights is _SAFETENSORS):
                continue
            patterns = [
                f"{loading.subfolder}/{file}" if loading.subfolder else file for file in ("config.json", *weights)
            ]
            folder = Path(huggingface_hub.snapshot_download(name, allow_patterns=patterns, **options))
            if any(found for file in weights for found in (folder / loading.subfolder).glob(file)):
                return folder
    except (OSError, ValueError) as error:  # every error of huggingface_hub is one of these
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(f"{missing} (huggingface_hub says: {type(error).__name__}: {reason})") from None
    raise ValueError(
        f"{name}: this model of the hub has no weights that the {framework} class reads: run "
        f"'hf download {name} --local-dir FOLDER', then 'bigbird-port convert FOLDER OUT', then load OUT"
    )
