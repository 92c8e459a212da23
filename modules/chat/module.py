"""chat as a value for the composition root."""

from modules.chat.personal import erase_user, export_user
from modules.chat.routes import ROUTES
from modules.chat.sockets import COMMANDS
from server.module import Module

MODULE = Module("chat", routes=ROUTES, commands=COMMANDS, export_user=export_user, erase_user=erase_user)
