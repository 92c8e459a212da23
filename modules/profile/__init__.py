"""profile owns what people tell of themselves and how they like things: `users.profile_data` and `users.preferences`.

This is its front door; what is not exported here is private. Export and erasure of a person begin here, and every
module contributes to them (server/module.py).
"""

from modules.profile.module import MODULE

__all__ = ["MODULE"]
