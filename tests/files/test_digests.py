import hashlib
import threading
import time

import pytest

from bigbird_port.files import digests as digests_module
from bigbird_port.files.digests import FileDigests, file_digest


def test_a_file_is_hashed_once(tmp_path, monkeypatch):
    data = bytes(range(256)) * 20_000  # several reads
    (tmp_path / "file").write_bytes(data)
    calls = []
    monkeypatch.setattr(digests_module, "file_digest", lambda *a: calls.append(a) or file_digest(*a))
    with FileDigests() as digests:
        first, second = (digests.sha256(tmp_path / "file") for _ in range(2))
        assert first.result() == second.result() == hashlib.sha256(data).hexdigest()
    assert len(calls) == 1


def test_leaving_the_block_stops_what_runs(tmp_path):
    with (tmp_path / "file").open("wb") as file:
        file.truncate(1 << 40)  # zeros, which would take ten minutes
    start = time.perf_counter()
    with FileDigests() as digests:
        digests.sha256(tmp_path / "file")
    assert time.perf_counter() - start < 20


def test_an_absent_file_is_said(tmp_path):
    with FileDigests() as digests, pytest.raises(FileNotFoundError):
        digests.sha256(tmp_path / "absent").result()


def test_stopped_before_it_began(tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    stopped = threading.Event()
    stopped.set()
    assert file_digest(tmp_path / "file", stopped) == hashlib.sha256(b"").hexdigest()
