"""What from_pretrained does before a framework comes in: its keywords, and the weights of one head from a folder."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Self

import numpy as np

from bigbird_port.families.configuration import Configuration
from bigbird_port.families.family import Family
from bigbird_port.families.registry import default_family, family_of, read_config
from bigbird_port.models.folder import Reader, read_model_folder, weights_beside
from bigbird_port.models.place import find_model_folder
from bigbird_port.schema.table import Framework, weights_of
from bigbird_port.schema.weights import complete, framework_name, to_framework


@dataclass(frozen=True, kw_only=True)
class Loading:
    """The keywords of from_pretrained that both frameworks have.

    config: a configuration, or the path of one, in place of the folder's. init_seed: initialise head weights that the
    folder lacks from this seed; None makes them an error. ignore_mismatched_sizes: initialise head weights of another
    shape too (from seed 0 where init_seed is None). use_safetensors: read no other weight files (True), or not these
    (False). subfolder: where the model lies in its folder. revision, cache_dir, token, local_files_only,
    force_download: huggingface_hub's, of a model of the hub. output_loading_info: return (model, what was missing).
    attn_implementation: "eager"; which attention runs is attention_type's to say. low_cpu_mem_usage: as it always is.
    trust_remote_code: no code is read. overrides: fields of the configuration to change. family: whose model it is.
    """

    config: Configuration | str | Path | None = None
    init_seed: int | None = None
    ignore_mismatched_sizes: bool = False
    use_safetensors: bool | None = None
    subfolder: str = ""
    revision: str | None = None
    cache_dir: str | Path | None = None
    token: str | bool | None = None
    local_files_only: bool = False
    force_download: bool = False
    output_loading_info: bool = False
    attn_implementation: str | None = None
    low_cpu_mem_usage: bool | None = None
    trust_remote_code: bool | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)
    family: Family | None = None

    @classmethod
    def of(
        cls,
        keywords: Mapping[str, Any],
        own: Collection[str],
        refused: Mapping[str, str] | None = None,
        family: Family | None = None,
    ) -> Self:
        """Sort keywords into those above and the configuration's.

        own: names that the framework's from_pretrained has beside them. refused: what it has not, with the next step.
        family: whose configurations these are; None: the default. Raises ValueError for any other, naming the nearest.
        """
        settings = {item.name for item in fields((family or default_family()).config)}  # type: ignore[arg-type]
        common = {item.name for item in fields(cls)} - {"overrides", "family"}
        steps = _REFUSED | dict(refused or {})
        for name, value in keywords.items():
            if name in steps and value not in (None, False):
                raise ValueError(f"from_pretrained: {name} is not offered: {steps[name]}")
            if name not in settings | common | steps.keys():
                near = difflib.get_close_matches(name, [*common, *own, *settings], n=1, cutoff=0.5)
                hint = f"did you mean {near[0]!r}?" if near else "leave it out"
                raise ValueError(f"from_pretrained: there is no argument {name!r}: {hint}")
        attention = keywords.get("attn_implementation")
        if attention not in (None, "eager"):
            raise ValueError(
                f"from_pretrained: attn_implementation is {attention!r}, but only 'eager' is there, and the fastest "
                "way to compute it is taken by itself: leave it out; attention_type='original_full' attends fully"
            )
        return cls(
            overrides={name: value for name, value in keywords.items() if name in settings},
            family=family or default_family(),
            **{name: value for name, value in keywords.items() if name in common},
        )


# What transformers has and neither framework here: the next step.
_REFUSED = {
    "from_tf": "run 'bigbird-port convert TF_CKPT OUT' and load OUT",
    "from_flax": "run 'bigbird-port convert FOLDER OUT' and load OUT",
    "quantization_config": "load without it and quantise the model with the library that you want to use",
    "load_in_8bit": "load without it and quantise the model with the library that you want to use",
    "load_in_4bit": "load without it and quantise the model with the library that you want to use",
    "variant": "give the weights the usual name, model.safetensors",
    "gguf_file": "convert from a checkpoint that is not quantised",
}


@dataclass(frozen=True)
class Loaded:
    """The weights of one head.

    config: under which it runs. arrays: under the framework's names. initialised: canonical names of those that came
    from no file. unused, mismatched: canonical names of what the folder holds and the head does not take.
    """

    config: Any
    arrays: dict[str, np.ndarray]
    initialised: list[str]
    unused: list[str]
    mismatched: list[str]

    def info(self, framework: Framework, head: str) -> dict[str, list[Any]]:
        """Return what transformers calls the loading info, under the framework's names."""
        names = {row.name: framework_name(row, framework) for row in weights_of(self.config, head, framework)}
        return {
            "missing_keys": [names.get(name, name) for name in self.initialised if name not in self.mismatched],
            "unexpected_keys": self.unused,
            "mismatched_keys": [names.get(name, name) for name in self.mismatched],
            "error_msgs": [],
        }


def load_model(
    place: str | Path,
    head: str,
    framework: Framework,
    loading: Loading,
    readers: Mapping[str, Reader] | None = None,
) -> Loaded:
    """Return the weights of ``head`` from a folder or a model of the hub; raises ValueError naming file or weight.

    readers: as for read_model_folder.
    """
    path = find_model_folder(place, framework, loading)
    given = _given_config(loading.config)
    alone = None if given is None else (given, head)
    folder = read_model_folder(path, framework, readers, loading.use_safetensors, alone)
    config = given or folder.config
    if loading.family is not None:
        check_config(config, loading.family.model_type, loading.family.head(head).class_name)
    config = config.replace(**loading.overrides)
    rows = {row.name: row for row in weights_of(config, head, framework)}
    mismatched = []
    if loading.ignore_mismatched_sizes:
        for name, row in rows.items():
            if row.fill == "initialise" and name in folder.weights and folder.weights[name].shape != row.shape(config):
                mismatched.append(name)
    beside = weights_beside(folder.path, [name for name in rows if name not in folder.weights])
    weights = {name: array for name, array in (folder.weights | beside).items() if name not in mismatched}
    seed = loading.init_seed
    if seed is None and mismatched and rows.keys() <= folder.weights.keys():
        seed = 0
    try:
        completed, initialised = complete(weights, config, head, framework, seed)
    except ValueError as error:
        raise ValueError(f"{folder.path}: {error}") from None
    unused = [name for name in folder.weights if name not in rows]
    return Loaded(config, to_framework(completed, config, head, framework), initialised, unused, mismatched)


def check_config(config: Any, model_type: str, class_name: str) -> None:
    """Raise ValueError unless a configuration is of the family that a class is of."""
    if config.model_type != model_type:
        found = family_of(config.model_type)
        raise ValueError(
            f"{class_name} is a class of {family_of(model_type).title}, but the configuration is that of a "
            f"{found.title} model: take {found.heads[found.base].class_name} or another class of {found.title}"
        )


def _given_config(config: Any) -> Configuration | None:
    if config is None or hasattr(config, "family"):
        return config
    if not isinstance(config, (str, Path)):
        raise ValueError(
            f"from_pretrained: config is of type {type(config).__name__}, expected a BigBirdConfig or the path of its "
            "file: BigBirdConfig.from_dict(config.to_dict()) makes one"
        )
    path = Path(config)
    return read_config(path / "config.json" if path.is_dir() else path)
