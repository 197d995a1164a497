"""One QMP session with a guest, shared by any number of clients.

framing      cuts what a client sends into messages
permits      what a client may have QEMU do
requests     judges one message: forwarded, or answered here
multiplexer  the sessions of all clients around the one with the guest; no I/O
sharing      the same over a `qmpmem.wire.qmp.Session` and the transports of an event loop
"""
