"""The fault harness: proves what GUARANTEES promises, on real services, with real faults, from outside.

Used by tests/system and by `python -m server verify`. It talks to the servers over HTTP and Socket.IO only, as any
client does, and never imports the code that it judges. What histories must look like is checker.py; all else makes
histories. Process trees and descriptors are read from /proc, so it needs Linux.
"""
