"""The built-in web client: static ES modules that run as they are, without a build step.

Owns `/` and `/static/…`. It is a client like any other: all it knows comes through the REST API and the sockets.
Others import: `add_static`.
"""

from modules.web.routes import add_static

__all__ = ["add_static"]
