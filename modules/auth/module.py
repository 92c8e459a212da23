"""auth as a value for the composition root."""

from modules.auth.routes import ROUTES
from server.module import Module

MODULE = Module("auth", routes=ROUTES)
