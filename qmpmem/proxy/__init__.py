"""One QMP session with a guest, shared by any number of clients.

framing            cuts what a client sends into messages
allowed_commands   what a client may have QEMU do
requests           judges one message: forwarded, or answered here
client             what one client sent, and what waits for it
multiplexer        the sessions of all clients around the one with the guest; no I/O
turns              whose turn it is at QEMU: users take turns, and each user's clients
kept_bytes         how many bytes of what clients sent all sessions keep
fair_share         how much of the event loop the clients of each user may have
hang_ups           clients that have gone while nothing is read from them
client_connection  the transport of one client
shared_session     the same over a `qmpmem.wire.qmp.Session` and the transports of an event loop
client_socket      a socket at which any number of clients share a guest's session
client_session     one client in this process: a pair of files, or a single command
"""
