"""chat owns messages, typing and how far people have read: events in the room log, and the table `read_marks`.

This is its front door; what is not exported here is private.
"""

from modules.chat.module import MODULE

__all__ = ["MODULE"]
