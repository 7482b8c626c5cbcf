"""Answer in one call what only a device can tell: tests, parity, calibration and speed, in one JSON and one page.

    python -m benchmarks.on_device [--device cuda] [--json FILE] [--html FILE] [--small] [--only PART ..]

Nothing is installed. Each part runs in a process of its own, within a time of its own, and what it has found by then is
kept. A part whose packages are absent says so. The files are written anew as each part ends.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from pathlib import Path

from benchmarks.on_device.page import page
from benchmarks.on_device.parts import PARTS
from benchmarks.on_device.record import Record, began, passed, write
from benchmarks.on_device.running import run_part

SECONDS = 465  # of all parts together


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], prog="python -m benchmarks.on_device")
    parser.add_argument("--device", default="cuda", help="cuda, tpu, or cpu for a dry run [cuda]")
    parser.add_argument("--json", type=Path, default=Path("on-device.json"), help="the results [on-device.json]")
    parser.add_argument("--html", type=Path, default=Path("on-device.html"), help="the page [on-device.html]")
    parser.add_argument("--small", action="store_true", help="tiny models, which show that it runs")
    parser.add_argument("--seconds", type=float, default=SECONDS, help=f"of all parts together [{SECONDS}]")
    parser.add_argument("--only", nargs="+", choices=[part.name for part in PARTS], metavar="PART", help="some parts")
    arguments = parser.parse_args()
    record = began(arguments.device, arguments.small)
    end = time.monotonic() + arguments.seconds
    for part in (part for part in PARTS if not arguments.only or part.name in arguments.only):
        print(f"{part.name}: {part.question}", flush=True)
        done = run_part(part, arguments.device, arguments.small, end - time.monotonic())
        record["parts"].append(done)
        _write(record, arguments)
        print(f"{part.name}: {done['state']}, {done['seconds']:.0f} s{done['why'] and ': ' + done['why']}", flush=True)
    print(f"{arguments.json} and {arguments.html}: {'all passed' if passed(record) else 'not all passed'}")
    sys.exit(0 if passed(record) else 1)


def _write(record: Record, arguments: argparse.Namespace) -> None:
    write(record, arguments.json)
    partial = arguments.html.with_name(f".{arguments.html.name}.partial")
    partial.write_text(page(record), encoding="utf-8")
    partial.replace(arguments.html)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # so that the part ends with it
    main()
