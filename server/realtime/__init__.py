"""Rooms, their log and their delivery: the reason this project exists.

Knows no feature; only this package writes to sockets.

Read in this order: log.py (the write path), fanout.py (the gate), channels.py (news between replicas), presence.py,
namespace.py (commands), protocol.py and packets.py (Socket.IO), engine.py, connection.py and transports.py (Engine.IO),
wire.py (bytes).
"""
