"""chat as a value for the composition root."""

from modules.chat.routes import ROUTES
from modules.chat.sockets import COMMANDS
from server.module import Module

MODULE = Module("chat", routes=ROUTES, commands=COMMANDS)
