"""What was asked for on the command line."""

from __future__ import annotations

import sys
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Options:
    """`only` and `servers` select by parts of names; empty means all."""

    quick: bool = False
    only: tuple[str, ...] = ()
    servers: tuple[str, ...] = ()

    def wants(self, title: str) -> bool:
        return not self.only or any(part in title for part in self.only)

    def wants_server(self, name: str) -> bool:
        return not self.servers or name in self.servers

    def note(self, message: str) -> None:
        """Say what is being measured; the figures go to standard output."""
        print(message, file=sys.stderr, flush=True)
