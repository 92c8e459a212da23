"""classroom owns courses, their members, rooms and the state of live classes: the tables `courses`, `course_members`,
`room_members` and `rooms` (whose last_seq and state are written by the room log).

This is its front door; what is not exported here is private. `access_room` is the only way to a room, `read_roles` and
`fold` are the rules of the room log, `require_allowed` is the table of who may do what, `LogQuery` and `log_page` read
a log over HTTP.
"""

from modules.classroom.errors import RoomClosed
from modules.classroom.module import MODULE
from modules.classroom.permissions import permissions_of, require_allowed
from modules.classroom.schemas import LogQuery, RoomEventOut, Span, log_page
from modules.classroom.service import access_course, access_room, require_limit
from modules.classroom.state import fold, initial_state
from modules.classroom.store import Course, Room, read_roles

__all__ = [
    "MODULE",
    "Course",
    "LogQuery",
    "Room",
    "RoomClosed",
    "RoomEventOut",
    "Span",
    "access_course",
    "access_room",
    "fold",
    "initial_state",
    "log_page",
    "permissions_of",
    "read_roles",
    "require_allowed",
    "require_limit",
]
