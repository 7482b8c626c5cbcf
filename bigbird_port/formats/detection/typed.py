"""What is typed in place of a path: an address, or the name of a model on a hub; each is to be downloaded first."""

from __future__ import annotations

import re
import shlex

# scheme -> how what lies there is downloaded; {whole} and {rest} are the address with and without the scheme.
_COMMANDS = {
    "gs": "gsutil -m cp -r {whole} .",
    "s3": "aws s3 cp --recursive {whole} .",
    "hdfs": "hdfs dfs -get {whole} .",
    "http": "curl -LO {whole}",
    "https": "curl -LO {whole}",
    "ftp": "curl -O {whole}",
    "az": "azcopy copy {whole} . --recursive",
    "abfs": "azcopy copy {whole} . --recursive",
    "abfss": "azcopy copy {whole} . --recursive",
    "wasbs": "azcopy copy {whole} . --recursive",
    "r2": "rclone copy {rest} .",
    "oss": "ossutil cp -r {whole} .",
    "ssh": "scp -r {rest} .",
    "sftp": "scp -r {rest} .",
    "dbfs": "databricks fs cp -r {whole} .",
    "kaggle": "kaggle models instances versions download {rest}",
}
# Path folds the slashes behind the colon: what it gives is known again.
_ADDRESS = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]{1,20}):/{1,2}(?P<rest>\S.*)", re.IGNORECASE | re.DOTALL)
_PART = r"[A-Za-z0-9][\w.-]{0,95}"
_HUB_PAGE = re.compile(
    rf"(www\.)?(huggingface\.co|hf\.co)/+(?P<name>{_PART}/{_PART})(/(resolve|blob|raw)/[^/]+/(?P<file>[^?#]+))?"
)
_HUB_NAME = re.compile(rf"{_PART}/{_PART}")
_CHECKPOINT = re.compile(r".*ckpt(-\d+)?")


def check_address(typed: str) -> None:
    """Raise ValueError, with the command that downloads it, if what was typed is an address and no path."""
    found = _ADDRESS.fullmatch(typed)
    if not found:
        return
    scheme, rest = found["scheme"].lower(), found["rest"]
    whole = f"{found['scheme']}://{rest}"
    if scheme == "file":
        raise ValueError(f"{typed}: expected a path, found an address of a file here: give /{rest.lstrip('/')}")
    page = _HUB_PAGE.match(rest) if scheme in ("http", "https") else None
    if page or scheme == "hf":
        command = _hub_command(*(page["name"], page["file"]) if page else (re.sub(r"^models/", "", rest), None))
    elif scheme in _COMMANDS:
        wanted = f"{whole}*" if _CHECKPOINT.fullmatch(rest) and scheme == "gs" else whole
        command = _COMMANDS[scheme].format(whole=shlex.quote(wanted), rest=shlex.quote(rest))
    elif len(found["scheme"]) == 1 or "://" not in typed:
        return  # a drive's letter, or a folder whose name ends in a colon
    else:
        raise ValueError(f"{whole}: expected a path on this machine, found an address: download it first")
    raise ValueError(f"{whole}: expected a path on this machine, found an address: download it first: {command}")


def check_hub_name(typed: str) -> None:
    """Raise ValueError, with the command that downloads it, if what was typed has the form OWNER/NAME of a hub."""
    if _HUB_NAME.fullmatch(typed):
        raise ValueError(
            f"{typed}: there is no such file or folder; if it is the name of a model on the Hugging Face hub, download "
            f"it first: {_hub_command(typed)}, and give {typed.split('/')[1]}"
        )


def _hub_command(name: str, file: str | None = None) -> str:
    wanted = f" {shlex.quote(file)}" if file else ""
    parts = name.split("/")[:2]
    return f"hf download {shlex.quote('/'.join(parts))}{wanted} --local-dir {shlex.quote(parts[-1])}"
