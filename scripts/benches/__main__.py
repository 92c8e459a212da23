"""`scripts/bench [NAME …] [--quick] [--json FILE]`: runs benchmarks and prints their table."""

from __future__ import annotations

import argparse
import asyncio
import json
from pathlib import Path

from scripts.benches import realtime
from scripts.benches.figures import Figure, table

BENCHES = {"realtime": realtime.run}


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"any of {', '.join(BENCHES)}; all by default")
    parser.add_argument("--quick", action="store_true", help="shorter runs, for a first look")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures as a list of objects")
    options = parser.parse_args()
    if unknown := set(options.names) - set(BENCHES):
        parser.error(f"no benchmark named {', '.join(sorted(unknown))}")
    figures: list[Figure] = []
    for name in options.names or BENCHES:
        figures += asyncio.run(BENCHES[name](quick=options.quick))
    print(table(figures))
    if options.json:
        options.json.write_text(json.dumps([figure.as_json() for figure in figures], indent=1) + "\n")


if __name__ == "__main__":
    main()
