"""Run the benchmarks, each in a process of its own: ``python benchmarks/run.py [--only parsing,search]``.

JSON lines of all of them on stdout, one table at the end on stderr. What a benchmark measures is told by
``python benchmarks/NAME.py --help``.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from _measure import default_data, table

BENCHMARKS = ("parsing", "encoding", "search", "memory", "pretraining", "codes", "fusion")


def main() -> int:
    """Run what was asked for; return 1 when one of them failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--only", default=",".join(BENCHMARKS), help="names, separated by commas [%(default)s]"
    )
    parser.add_argument(
        "--data", type=Path, default=default_data(), help="folder of the real data [%(default)s]"
    )
    options = parser.parse_args()
    names = [name.strip() for name in options.only.split(",") if name.strip()]
    if unknown := [name for name in names if name not in BENCHMARKS]:
        parser.error(f"unknown benchmark '{unknown[0]}'; expected some of {', '.join(BENCHMARKS)}")
    lines, failed = [], []
    for name in names:
        print(f"== {name}", file=sys.stderr, flush=True)
        began = time.monotonic()
        command = [sys.executable, str(Path(__file__).with_name(f"{name}.py")), "--no-table"]
        command += ["--data", str(options.data)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                print(line, end="", flush=True)
                lines.append(json.loads(line))
        if process.returncode:
            failed.append(name)
        print(f"== {name}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    print(table(lines), file=sys.stderr)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
