"""Privilege separation: root's guests, for an agent that is not root.

The broker runs as the guests' user and is the only process of ours that holds their monitors. It
gives the agent, which has a user of its own and no rights, a session with each that moves memory
and reads, and no more. It decides nothing.

directory    the run directory that it shows the agent: a record and a socket for each guest
sessions     one guest's monitor, shared by the clients of its socket
loop         which guests there are, and a `sessions.Keeper` for each
"""
