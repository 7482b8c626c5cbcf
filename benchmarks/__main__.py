"""Measure this project against transformers, one thread each, and hold the figures against their goals.

    python -m benchmarks [SUBJECT ...] [--json FILE] [--report] [--quick]

Every subject runs in processes of its own, compares what both sides compute before it times them, and ends the run
where they differ.
"""

from __future__ import annotations

import argparse
import datetime
import importlib
import time
from pathlib import Path
from typing import Any

from benchmarks.measure import machine, run_alone, versions
from benchmarks.report import SUBJECTS, Record, print_rows, read_record, rows_of, write_record, write_report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], prog="python -m benchmarks")
    parser.add_argument("subjects", nargs="*", metavar="SUBJECT", help=f"of {', '.join(SUBJECTS)}; all without")
    parser.add_argument("--json", type=Path, help="write the figures to this file; other subjects in it stay")
    parser.add_argument(
        "--report", action="store_true", help="draw the plots in docs/ and fill in its tables from --json"
    )
    parser.add_argument("--repeats", type=int, default=5, help="timed runs of each side (5), whose median counts")
    parser.add_argument("--quick", action="store_true", help="tiny models, which show that it runs, and no goals")
    arguments = parser.parse_args()
    if unknown := set(arguments.subjects) - set(SUBJECTS):
        parser.error(f"{', '.join(sorted(unknown))}: there is no such subject; there are {', '.join(SUBJECTS)}")
    if arguments.report and not arguments.json:
        parser.error("--report writes what is in a file: name it with --json")
    record = measured_before(arguments.json, arguments.quick)
    for name in arguments.subjects or SUBJECTS:
        record["subjects"][name] = measure_subject(name, arguments.repeats, arguments.quick)
        if arguments.json:
            write_record(record, arguments.json)
    print_rows(row for name in record["subjects"] for row in rows_of(record, name))
    if arguments.report:
        write_report(record)


def measured_before(path: Path | None, quick: bool) -> Record:
    """What a file holds, if it was measured in the same circumstances; else a record without subjects."""
    record: Record = {"machine": machine(), "versions": versions(), "quick": quick, "subjects": {}}
    before = read_record(path) if path and path.exists() else record
    return before if before | {"subjects": {}} == record else record


def measure_subject(name: str, repeats: int, quick: bool) -> dict[str, Any]:
    """Run all cases of a subject, each in a process of its own."""
    subject, start = importlib.import_module(f"benchmarks.{name}"), time.monotonic()
    print(subject.TITLE, flush=True)
    results = []
    for case in subject.QUICK if quick else subject.CASES:
        results += run_alone(f"benchmarks.{name}:measure", **case, repeats=repeats)
    seconds, now = round(time.monotonic() - start), datetime.datetime.now(datetime.UTC)
    print_rows(subject.rows(results))
    return {"title": subject.TITLE, "measured": f"{now:%Y-%m-%d %H:%M} UTC", "seconds": seconds, "results": results}


if __name__ == "__main__":
    main()
