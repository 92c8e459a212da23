"""auth as a value for the composition root."""

from modules.auth.jobs import CONSUMERS, PERIODIC
from modules.auth.personal import erase_user, export_user
from modules.auth.routes import ROUTES
from server.module import Module

MODULE = Module(
    "auth", routes=ROUTES, consumers=CONSUMERS, periodic=PERIODIC, export_user=export_user, erase_user=erase_user
)
