"""A named pipe or a device in place of every file that any command opens: refused by name, at once."""

import os
import shutil
import signal

import click
import pytest
from click.testing import CliRunner

from bigbird_port.cli import main
from bigbird_port.conversion.convert import Settings, convert
from bigbird_port.conversion.targets import Choices
from tests.conftest import DEMO
from tests.conversion.brought.sources import numbered, write_torch
from tests.vocabulary import train_vocabulary

SECONDS = 60  # the machine may be busy; a pipe would block for ever


class TookTooLong(BaseException):
    """Not an Exception, which something might catch."""


@pytest.fixture(autouse=True)
def limited():
    def stop(number, frame):
        raise TookTooLong

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Sources of every kind, and what convert makes of one."""
    folder = tmp_path_factory.mktemp("made")
    torch = write_torch(folder / "torch", numbered())
    (torch / "spiece.model").write_bytes(train_vocabulary())
    every = Settings(to=("torch", "flax", "tf", "neutral"))
    convert(torch, folder / "out", every)
    convert(torch, folder / "orbax-out", Settings(to=("flax",), choices=Choices(flax_format="orbax")))
    convert(torch, folder / "shards-out", Settings(to=("torch", "tf"), choices=Choices(max_shard_size=9_000)))
    for name in ("torch", "flax", "tf", "neutral"):
        shutil.copytree(folder / "out" / name, folder / f"plain-{name}")
    shutil.copytree(folder / "orbax-out/flax", folder / "plain-orbax")
    shutil.copytree(folder / "shards-out/torch", folder / "plain-shards")
    shutil.copytree(folder / "shards-out/tf", folder / "plain-tf-shards")
    shutil.copytree(DEMO, folder / "plain-demo")
    return folder


def put(path, what):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    if what == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    return path


def run(*arguments):
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def options_of(group, path=()):
    """Every (command, parameter) of type path, in all commands."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from options_of(command, (*path, name))
            continue
        for parameter in command.params:
            if isinstance(parameter.type, click.Path):
                spelled = parameter.opts[-1] if isinstance(parameter, click.Option) else parameter.name
                yield " ".join((*path, name)), spelled


# Arguments with which each command would run; X stands where a pipe is put for an argument.
ARGUMENTS = {
    "convert": {"source": "{made}/torch", "out": "{new}"},
    "inspect": {"path": "{made}/torch"},
    "diff": {"a": "{made}/torch", "b": "{made}/torch"},
    "verify": {"out": "{made}/out"},
    "parity run": {"out": "{made}/out"},
    "parity calibrate": {},
    "parity report": {"file": "{made}/torch/config.json"},
    "parity baseline save": {"file": "{new}", "runs": "{made}/torch/config.json"},
    "parity baseline check": {"file": "{made}/torch/config.json", "run": "{made}/torch/config.json"},
    "parity faults": {"out": "{made}/out"},
    "parity bisect": {"out": "{made}/out"},
    "parity mutants": {},
}
MORE = {"parity run": ["--head", "base", "--length", "32"], "parity bisect": ["--head", "base"]}
WITH = {"--context": ["--question", "What is it?"]}
WITHOUT = {"--inputs": ["--length", "32"], "--golden": ["--length", "32"]}
FILES = sorted(options_of(main))


def test_there_are_options():
    assert len(FILES) > 30
    assert {command for command, _ in FILES} == set(ARGUMENTS)


@pytest.mark.parametrize("what", ["pipe", "device"])
@pytest.mark.parametrize(("command", "option"), FILES)
def test_every_option_and_argument(made, tmp_path, command, option, what):
    file = put(tmp_path / "given", what)
    values = ARGUMENTS[command] | ({option: str(file)} if option in ARGUMENTS[command] else {})
    arguments = [value.format(made=made, new=tmp_path / "new") for value in values.values()]
    more = [each for each in MORE.get(command, []) if each not in WITHOUT.get(option, [])]
    given = [option, file] if option.startswith("--") else []
    result = run(*command.split(), *arguments, *given, *more, *WITH.get(option, []))
    assert result.exit_code == 2, result.output
    assert str(file) in result.output.replace("\n", "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["given"]


def files_of(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


# Names that are looked for, and need not be there.
ALSO = ("checkpoint", "saved_model.pb", "config.json", "other.config", "model.safetensors", "pytorch_model.bin",
        "model.safetensors.index.json", "pytorch_model.bin.index.json", "flax_model.msgpack",
        "model.neutral.safetensors", "orbax/_METADATA")  # fmt: skip
PLAIN = ("plain-torch", "plain-flax", "plain-tf", "plain-neutral", "plain-orbax", "plain-shards", "plain-tf-shards",
         "plain-demo")  # fmt: skip
OF_A_TOKENIZER = ("spiece.model", "special_tokens_map.json", "tokenizer.json", "tokenizer_config.json",
                  "added_tokens.json")  # fmt: skip


@pytest.mark.parametrize("what", ["pipe", "device"])
@pytest.mark.parametrize("kind", PLAIN)
def test_every_file_of_a_source(made, tmp_path, kind, what):
    """Where it counts, it is named; where another file is read in its place, all is as without it."""
    names = files_of(made / kind)
    assert len(names) > 2
    for i, name in enumerate(names):
        source = shutil.copytree(made / kind, tmp_path / f"{i}")
        file = put(source / name, what)
        result = run("convert", source, tmp_path / "new", "--to", "torch")
        assert result.exit_code == 2, (name, result.output)
        assert file.name in result.output
        assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("what", ["pipe", "device"])
def test_names_that_are_looked_for(made, tmp_path, what):
    for i, name in enumerate(ALSO):
        source = tmp_path / f"{i}"
        shutil.copytree(made / "plain-demo", source)
        file = put(source / name, what)
        for command in (["inspect", source], ["convert", source, tmp_path / "new", "--dry-run"]):
            result = run(*command)
            assert (result.exit_code == 0) or (result.exit_code == 2 and file.name in result.output), result.output


@pytest.mark.parametrize("what", ["pipe", "device"])
@pytest.mark.parametrize("which", ["out", "orbax-out", "shards-out"])
def test_every_file_of_what_convert_wrote(made, tmp_path, which, what):
    for i, name in enumerate(files_of(made / which)):
        out = shutil.copytree(made / which, tmp_path / f"{i}")
        file = put(out / name, what)
        result = run("verify", out)
        assert result.exit_code in (1, 2)
        assert file.name in result.output
        commands = [["inspect", out], ["diff", out, out], ["convert", made / "torch", out, "--overwrite", "--dry-run"]]
        commands += [["parity", out, "--head", "base"]] if i < 3 and which == "out" else []
        for command in commands:
            result = run(*command)
            assert result.exit_code == 2, (name, result.output)
            assert file.name in result.output


@pytest.mark.parametrize("what", ["pipe", "device"])
def test_every_file_of_a_tokenizer(made, tmp_path, what):
    from bigbird_port.tokenizers import BigBirdTokenizer, BigBirdTokenizerFast

    for i, name in enumerate(OF_A_TOKENIZER):
        source = shutil.copytree(made / "plain-torch", tmp_path / f"{i}")
        file = put(source / name, what)
        for kind in (BigBirdTokenizer, BigBirdTokenizerFast):
            with pytest.raises(ValueError, match=file.name) as caught:
                kind.from_pretrained(source)
            assert "cannot be read" in str(caught.value)


def test_a_pipe_that_would_block(tmp_path):
    """The negative control: opened as files usually are, it blocks until the alarm."""
    file = put(tmp_path / "pipe", "pipe")
    signal.alarm(1)
    with pytest.raises(TookTooLong):
        file.read_bytes()
