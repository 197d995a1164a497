"""The only reader and writer of /proc and /sys.

    processes       processes and unix sockets; exported here, because most commands need no more
    files           reads small files of these, for all the others
    host            meminfo, vmstat
    pressure        pressure stall information, and its triggers
    ksm             /sys/kernel/mm/ksm, ksmd, and what each process has merged
    cgroup          memory budgets narrower than the host
    locks           which processes hold a lock on a file
    process_limits  the memory limits that hold for a process
    reclaim         reclaim of a cgroup's memory

Rules of this package:
    The root directory is an argument, so that tests use recorded trees. ``parse_*`` is pure.
    What this kernel lacks is None, found out by looking for the file: distributions port features
    back, so a version number tells nothing.
    Everything here blocks, if only for microseconds. Inside an event loop, call it in a thread, all
    of a round at once: to reach a thread takes longer than to read ten of these files.
"""

from qmpmem.wire.kernel.processes import (
    PROC,
    Memory,
    Process,
    UnixSocket,
    command_line,
    executable,
    first_directory,
    inodes_of,
    memory,
    open_files,
    owner,
    owner_of_socket,
    parent,
    parse_memory,
    parse_owner,
    parse_stat,
    parse_unix,
    pids,
    process,
    queued,
    socket_inodes,
    unix_sockets,
)

__all__ = [
    "PROC",
    "Memory",
    "Process",
    "UnixSocket",
    "command_line",
    "executable",
    "first_directory",
    "inodes_of",
    "memory",
    "open_files",
    "owner",
    "owner_of_socket",
    "parent",
    "parse_memory",
    "parse_owner",
    "parse_stat",
    "parse_unix",
    "pids",
    "process",
    "queued",
    "socket_inodes",
    "unix_sockets",
]
