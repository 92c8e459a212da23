"""classroom as a value for the composition root."""

from modules.classroom.routes import ROUTES
from modules.classroom.sockets import COMMANDS
from server.module import Module

MODULE = Module("classroom", routes=ROUTES, commands=COMMANDS)
