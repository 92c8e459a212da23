"""Rooms, their log and their delivery: the reason this project exists.

Knows no feature; only this package writes to sockets.

Read in this order: log.py (the write path), fanout.py (the gate), channels.py (news between replicas), presence.py,
namespace.py (commands), engine.py (the protocols), wire.py (bytes).
"""
