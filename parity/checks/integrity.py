"""Whether the converted files still hold what was converted: agreement of two tampered files proves nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bigbird_port.conversion.exports import EXPORTS
from bigbird_port.conversion.manifest import read_manifest
from bigbird_port.files.outputs.listed_files import compare_files
from bigbird_port.files.outputs.out_folder import check_out
from bigbird_port.models.folder import WEIGHT_FILES, read_model_folder
from bigbird_port.schema.weights import digest


@dataclass(frozen=True)
class Check:
    """One check: what was checked, whether it held, and what was found."""

    name: str
    passed: bool
    detail: str


def check_integrity(out: Path) -> list[Check]:
    """Compare the weights and configurations in ``out`` with its manifest; raises ValueError if one cannot be read."""
    check_out(out)
    manifest = read_manifest(out)
    config = manifest.config
    checks = []
    there = [framework for framework in WEIGHT_FILES if framework in manifest.targets]
    if not there:
        raise ValueError(
            f"{out}: it holds no model for torch or Flax, which the reference reads: convert the source again, with "
            f"--to torch,flax,{','.join(manifest.targets)}"
        )
    for framework in there:
        folder = read_model_folder(out / framework, framework)
        expected = manifest.digests(framework)
        found = {name: digest(values) for name, values in folder.weights.items()}
        changed = [name for name in sorted(expected.keys() | found.keys()) if expected.get(name) != found.get(name)]
        detail = f"{len(found)} weights equal the manifest's sha256"
        if changed:
            detail = f"{len(changed)} of {len(expected)} differ: {', '.join(changed[:3])}"
        checks.append(Check(f"{framework} weights", bool(folder.weights) and not changed, detail))
        expected_fields, found_fields = config.to_dict(), folder.config.to_dict()
        names = sorted(expected_fields.keys() | found_fields.keys())
        fields = [name for name in names if expected_fields.get(name, ...) != found_fields.get(name, ...)]
        detail = f"differs in {', '.join(fields)}" if fields else "equals the manifest's"
        checks.append(Check(f"{framework} configuration", not fields, detail))
    for target in (target for target in manifest.targets if target in EXPORTS):
        found_files = compare_files(out / target, manifest.files(target))
        detail = "; ".join(found_files.problems) or f"{found_files.count} files, sha256 as listed"
        checks.append(Check(f"{target} files", not found_files.problems, detail))
    return checks
