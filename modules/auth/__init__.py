"""auth owns accounts, login sessions and tokens: `auth_sessions`, and `users` apart from what profile writes there.

This is its front door; what is not exported here is private. `authenticate` is what the gateway and the namespaces ask
who a caller is; `summaries` shows users to others; `ensure_user` and `hash_password` are for whoever seeds accounts;
`live_sessions` tells which of many login sessions still live; `confirm_identity` and `require_step_up` guard what is
dangerous.
"""

from modules.auth.authentication import authenticate
from modules.auth.errors import NotConfirmed
from modules.auth.hashing import hash_password
from modules.auth.module import MODULE
from modules.auth.records import User
from modules.auth.schemas import Name, UserSummary
from modules.auth.second_factor.service import confirm_identity, require_step_up
from modules.auth.service import create_user, ensure_user, summaries
from modules.auth.store import read_live_sessions as live_sessions

__all__ = [
    "MODULE",
    "Name",
    "NotConfirmed",
    "User",
    "UserSummary",
    "authenticate",
    "confirm_identity",
    "create_user",
    "ensure_user",
    "hash_password",
    "live_sessions",
    "require_step_up",
    "summaries",
]
