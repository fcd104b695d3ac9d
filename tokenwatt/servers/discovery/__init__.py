"""Finds the inference servers of this host: sockets that listen, whose processes may be a server, and which say so when they are asked."""

from tokenwatt.servers.discovery.discovery import Discovery

__all__ = ["Discovery"]
