"""What /proc tells of processes: who listens on a port, who descends from whom, and whether a pid is still the same process.

Works without privileges. Links of file descriptors, readable for one's own processes or with CAP_SYS_PTRACE, prove who holds a socket;
where they cannot be read, the user id of the socket and the command lines tell. A process that ends while it is looked at is a process
that is not there: nothing here raises for it.
"""

from tokenwatt.procfs.holders import PortHolder, holders, listener, names_port, port_holder, sockets_held, topmost
from tokenwatt.procfs.processes import PROC, Process, ancestors, command_line, entries, net_namespace, pids, process, start_ticks, user
from tokenwatt.procfs.sockets import Address, ListenSocket, census, ends_in, listen_sockets, listening, local_addresses

__all__ = [
    "PROC",
    "Address",
    "ListenSocket",
    "PortHolder",
    "Process",
    "ancestors",
    "census",
    "command_line",
    "ends_in",
    "entries",
    "holders",
    "listen_sockets",
    "listener",
    "listening",
    "local_addresses",
    "names_port",
    "net_namespace",
    "pids",
    "port_holder",
    "process",
    "sockets_held",
    "start_ticks",
    "topmost",
    "user",
]
