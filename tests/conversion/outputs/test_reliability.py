"""What is left when a conversion is killed, interrupted, raced or out of room: a whole output, or none."""

import ast
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.checkpoint import write_checkpoint
from benchmarks.kill import finish, kills, races, run_well, start, verify, wait_for
from bigbird_port.conversion import convert as convert_module
from bigbird_port.conversion.convert import convert
from bigbird_port.conversion.manifest import write_manifest
from bigbird_port.files.outputs import output as output_module
from bigbird_port.files.outputs.exchange_names import exchange_names
from bigbird_port.files.outputs.output import whole_folder
from tests.conftest import DEMO, ROOT

MIB = 2**20


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small")
    write_checkpoint(folder / "source", "small")
    return folder


@pytest.fixture
def tmpfs(tmp_path):
    """Return a function that mounts a file system of so many bytes."""
    mounted = []

    def mount(size):
        folder = tmp_path / f"tmpfs-{size}"
        folder.mkdir()
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", folder], capture_output=True)
        if done.returncode:
            pytest.skip(f"no file system can be mounted here: {done.stderr.decode().strip()}")
        mounted.append(folder)
        return folder

    try:
        if shutil.which("mount") is None:
            pytest.skip("there is no mount command here")
        yield mount
    finally:
        for folder in mounted:
            subprocess.run(["umount", folder], check=True)


def run_limited(program, source, out, *options):
    """Run the command after a Python statement; returns exit code and standard error."""
    command = [sys.executable, "-c", f"{program}\nfrom bigbird_port.cli import main; main()"]
    done = subprocess.run([*command, "convert", source, out, "--quiet", *options], capture_output=True, text=True)
    return done.returncode, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("overwrite", [False, True])
def test_what_a_kill_leaves_is_whole_or_absent(small, overwrite):
    count = 100 if overwrite else 24
    left = kills(small, count, overwrite, random.Random(1))
    assert left["temporaries to remove"] > 0  # some were killed while they wrote
    assert sum(count for state, count in left.items() if state != "temporaries to remove") == count
    assert left["absent"] == 0 if overwrite else left["old"] == 0


def kill_moments(folder, mode, stride):
    """Counts of what is left, killed at every ``stride``th line of the code that replaces an output."""
    command = [sys.executable, Path(__file__).with_name("kill_moments.py"), folder, mode, str(stride)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    return ast.literal_eval(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="names are exchanged in one step on Linux alone")
@pytest.mark.parametrize("stride", [11, pytest.param(1, marks=pytest.mark.slow)])
def test_a_kill_at_any_line_leaves_the_old_output_or_the_new_one(tmp_path, stride):
    left = kill_moments(tmp_path, "exchange", stride)
    assert set(left) == {"old", "new"}
    assert sum(left.values()) >= 100 // stride


@pytest.mark.slow
def test_where_names_cannot_be_exchanged_an_absent_output_is_said_to_be_set_aside(tmp_path):
    """The negative control of the test above: in two steps there is a moment without an output."""
    left = kill_moments(tmp_path, "two-steps", 1)
    assert set(left) == {"old", "absent, and said where", "new"}
    assert left["absent, and said where"] < 5


@pytest.mark.slow
@pytest.mark.parametrize(("processes", "overwrite"), [(2, False), (4, False), (4, True)])
def test_of_several_at_once_one_wins_and_the_others_are_told(small, processes, overwrite):
    ends = races(small, 2, processes, overwrite, random.Random(2))
    assert sum(ends.values()) == 2 * processes
    assert ends["won"] == 2 or overwrite


@pytest.mark.parametrize("damage", ["flip", "remove", "add", "edit"])
def test_the_check_of_these_tests_sees_damage(tmp_path, damage):
    convert(DEMO, tmp_path / "out")
    verify(tmp_path / "out")
    file, manifest = tmp_path / "out/torch/model.safetensors", tmp_path / "out/manifest.json"
    if damage == "flip":
        data = bytearray(file.read_bytes())
        data[-1] ^= 1
        file.write_bytes(data)
    elif damage == "remove":
        file.unlink()
    elif damage == "add":
        (tmp_path / "out/torch/other").write_text("")
    else:
        manifest.write_text(manifest.read_text().replace('"init_seed": 0', '"init_seed": 1'))
    with pytest.raises((AssertionError, ValueError)):
        verify(tmp_path / "out")


@pytest.mark.parametrize("part", [0, 0.01, 0.5, 0.999])
def test_a_file_size_limit_leaves_nothing(tmp_path, part):
    convert(DEMO, tmp_path / "whole")
    largest = max(path.stat().st_size for path in (tmp_path / "whole").rglob("*"))
    place = tmp_path / "place"
    place.mkdir()
    limit = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({int(part * largest)},) * 2)"
    code, said = run_limited(limit, DEMO, place / "out")
    assert code == 2
    assert f"Error: {place}/out: writing failed: File too large: nothing was left behind" in said
    assert said.count("\n") == 1
    assert not list(place.iterdir())


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
def test_a_full_disk_leaves_nothing(tmp_path, tmpfs, part):
    """With the look at the free space before, and without, as another program may take the space since."""
    convert(DEMO, tmp_path / "whole")
    used = sum(path.stat().st_size for path in (tmp_path / "whole").rglob("*") if path.is_file())
    place = tmpfs(int(part * used))
    unseen = "import bigbird_port.conversion.convert as c; c._SPARE_BYTES = -(1 << 40)"
    for program, text in (("", "bytes are needed"), (unseen, "writing failed: No space left on device")):
        code, said = run_limited(program, DEMO, place / "out")
        assert (code, said.count("\n")) == (2, 1)
        assert text in said
        assert "free some space or choose another disk" in said
        assert not list(place.iterdir())


def test_a_disk_that_suffices_is_used(tmpfs):
    out = tmpfs(40 * MIB) / "out"
    run_well(DEMO, out)


def test_a_disk_that_may_not_be_written_is_named(tmpfs):
    place = tmpfs(MIB)
    subprocess.run(["mount", "-o", "remount,ro", place], check=True)
    code, said = finish(start(DEMO, place / "out"))
    assert (code, said) == (
        2,
        f"Error: {place}/out: cannot be written: Read-only file system: choose a folder that can\n",
    )


PLACES = {
    "a file": (lambda out, partial: out.write_text("mine"), "is not a folder: choose another name"),
    "a link to a folder": (lambda out, partial: out.symlink_to(out.parent.parent), "is a symbolic link: name the"),
    "a link to nothing": (lambda out, partial: out.symlink_to(out.parent / "no"), "is a symbolic link: name the"),
    "a file where it fills": (lambda out, partial: partial.write_text("mine"), "cannot be written: File exists"),
    "a link where it fills": (lambda out, partial: partial.symlink_to(out.parent.parent), "in the way: Not a dir"),
}


@pytest.mark.parametrize("what", PLACES)
def test_what_is_in_the_way_is_named_and_kept(tmp_path, what):
    place = tmp_path / "place"
    place.mkdir()
    (tmp_path / "mine").write_text("mine")
    PLACES[what][0](place / "out", place / ".out.partial")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ValueError, match=PLACES[what][1]):
        convert(DEMO, place / "out", overwrite=True)
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "mine").read_text() == "mine"


def test_a_missing_parent_is_made(tmp_path):
    convert(DEMO, tmp_path / "a/b/out")
    verify(tmp_path / "a/b/out")
    assert [path.name for path in (tmp_path / "a/b").iterdir()] == ["out"]


@pytest.mark.parametrize(("how", "told"), [(signal.SIGINT, "Interrupted"), (signal.SIGTERM, "Terminated")])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_signal_leaves_what_was_there(small, tmp_path, overwrite, how, told):
    out = tmp_path / "out"
    if overwrite:
        convert(DEMO, out)
    process = start(small / "source", out, *(["--overwrite"] if overwrite else []))
    wait_for(process, tmp_path / ".out.partial/torch")
    process.send_signal(how)
    code, said = finish(process)
    assert (code, said) == (128 + how, f"{told}: what was begun was cleaned up.\n")
    assert [path.name for path in tmp_path.iterdir()] == (["out"] if overwrite else [])
    if overwrite:
        assert verify(out).config.hidden_size == 16


def test_the_run_after_a_killed_one_leaves_nothing_of_it(small, tmp_path):
    process = start(small / "source", tmp_path / "out")
    wait_for(process, tmp_path / ".out.partial/torch")
    process.kill()
    assert finish(process)[0] == -signal.SIGKILL
    assert [path.name for path in tmp_path.iterdir()] == [".out.partial"]
    run_well(DEMO, tmp_path / "out")


def test_a_failed_flush_is_seen_whoever_flushed(tmp_path, monkeypatch):
    """The system reports a disk's error to the first who flushes the file, which is a thread of the conversion."""

    def fail(path):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(convert_module, "flush_one", fail)
    with pytest.raises(ValueError, match="writing failed: Input/output error"):
        convert(DEMO, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_the_winner_leaves_alone_what_the_next_one_began(tmp_path, monkeypatch):
    def begin_next(path):
        if path == tmp_path:  # the last flush, when the output has its name
            (tmp_path / ".out.partial").mkdir()

    monkeypatch.setattr(output_module, "flush_one", begin_next)
    with whole_folder(tmp_path / "out", False) as staged:
        (staged / "file").write_text("x")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".out.partial", "out"]


def test_a_failed_replacement_restores_the_old_output(tmp_path, monkeypatch):
    write_manifest(make(tmp_path / "out") / "manifest.json", {"targets": {}})
    before = (tmp_path / "out/manifest.json").read_bytes()
    rename = Path.rename

    def fail(path, target):
        if path.name == ".out.partial":
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fail)
    monkeypatch.setattr(output_module, "exchange_names", lambda first, second: False)
    with pytest.raises(KeyboardInterrupt), whole_folder(tmp_path / "out", True) as staged:
        (staged / "torch").mkdir()
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "manifest.json"]
    assert (tmp_path / "out/manifest.json").read_bytes() == before


def test_what_is_put_into_the_output_meanwhile_is_kept(tmp_path, monkeypatch):
    """At the last moment, after it was looked at: the exchange is undone."""
    write_manifest(make(tmp_path / "out") / "manifest.json", {"targets": {}})

    def exchange_after_notes(first, second):
        if second == tmp_path / "out" and not (first / "notes").exists():
            (second / "notes").write_text("mine")
        return exchange_names(first, second)

    monkeypatch.setattr(output_module, "exchange_names", exchange_after_notes)
    with (
        pytest.raises(ValueError, match="would remove what convert did not write: notes is not listed"),
        whole_folder(tmp_path / "out", True) as staged,
    ):
        (staged / "torch").mkdir()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["manifest.json", "notes", "out"]


def make(folder):
    folder.mkdir()
    return folder


def test_an_old_output_that_was_waiting_is_restored_but_not_a_half_removed_one(tmp_path):
    (make(tmp_path / ".out.replaced") / "manifest.json").write_text("{}")
    (make(tmp_path / ".out.removed") / "torch").mkdir()
    with pytest.raises(ValueError, match="exists already"), whole_folder(tmp_path / "out", False):
        pass
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["manifest.json", "out"]


@pytest.mark.parametrize("end", ["partial", "replaced", "removed"])
def test_a_folder_of_the_users_under_a_name_of_ours_is_not_cleared(tmp_path, end):
    (make(tmp_path / f".out.{end}") / "thesis.tex").write_text("mine")
    if end == "replaced":
        write_manifest(make(tmp_path / "out") / "manifest.json", {"targets": {}})
    with pytest.raises(ValueError, match=r"in the way: it holds thesis\.tex"):
        convert(DEMO, tmp_path / "out", overwrite=True)
    assert (tmp_path / f".out.{end}/thesis.tex").read_text() == "mine"


PEAK = """
import atexit, re
atexit.register(lambda: print(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]))
"""
CONVERT = "from bigbird_port.cli import main; main()"
LOAD = """
import sys
from pathlib import Path
from bigbird_port.conversion.source import open_source
source = open_source(Path(sys.argv[2]))
weights = [source.weight(weight, name) for weight, name in source.match(source.head).sources.items()]
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="the system does not tell a process's peak memory")
def test_memory_does_not_grow_with_the_model(tmp_path):
    """170 MB of weights; a program that loads them all shows that the bound can be passed."""
    write_checkpoint(tmp_path / "source", "embedding", ("",))

    def peak_mib(program):
        command = [sys.executable, "-c", PEAK + program, "convert", tmp_path / "source", tmp_path / "out", "--quiet"]
        return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout) / 1024

    own = peak_mib("import numpy")
    assert peak_mib(CONVERT) - own < 128
    assert peak_mib(LOAD) - own > 128
