"""classroom as a value for the composition root."""

from modules.classroom.personal import erase_user, export_user
from modules.classroom.routes import ROUTES
from modules.classroom.sockets import COMMANDS
from server.module import Module

MODULE = Module("classroom", routes=ROUTES, commands=COMMANDS, export_user=export_user, erase_user=erase_user)
