"""profile as a value for the composition root."""

from modules.profile.personal import erase_user, export_user
from modules.profile.routes import ROUTES
from server.module import Module

MODULE = Module("profile", routes=ROUTES, export_user=export_user, erase_user=erase_user)
