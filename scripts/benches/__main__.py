"""`scripts/bench [NAME …] [--quick] [--only PART] [--server NAME] [--json FILE]`: runs benchmarks, prints tables."""

from __future__ import annotations

import argparse
import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path

from scripts.benches import realtime, storms
from scripts.benches.figures import Figure, table
from scripts.benches.options import Options
from scripts.benches.servers import SERVERS

BENCHES = {"realtime": realtime.run, "storms": storms.run}


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"any of {', '.join(BENCHES)}; all by default")
    parser.add_argument("--quick", action="store_true", help="fewer scenarios and shorter runs, for a first look")
    parser.add_argument("--only", action="append", default=[], metavar="PART", help="scenarios whose title has this")
    parser.add_argument("--server", action="append", default=[], choices=SERVERS, help="only this one (repeat it)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures as a list of objects")
    options = parser.parse_args()
    if unknown := set(options.names) - set(BENCHES):
        parser.error(f"no benchmark named {', '.join(sorted(unknown))}")
    asked = Options(options.quick, tuple(options.only), tuple(options.server))
    figures: list[Figure] = []
    print(f"began {datetime.now(UTC):%Y-%m-%d %H:%M} UTC")
    for name in options.names or BENCHES:
        figures += asyncio.run(BENCHES[name](asked))
    print(f"\n{table(figures)}")
    if options.json:
        options.json.write_text(json.dumps([figure.as_json() for figure in figures], indent=1) + "\n")


if __name__ == "__main__":
    main()
