"""Talking to the agent: HTTP and JSON over a unix socket.

records     what passes between the agent and a client
address     where its socket is
client      asks; a few lines over a socket, cheap to load
asking      the same from inside an event loop, and streams
message     questions and answers as bytes
ways        which socket a question goes to, and to which next
guest       a guest that the agent holds, used like `qmpmem.guests.guest.DirectGuest`
monitor     a QMP session with such a guest

listener    the socket and its lock, made safely
rights      which processes may look, and which may change something
connection  one client's connection: places, times, and no more memory than its answer
recent      the last decisions about each guest, and the last events of all
leases      room for guests that are about to start
desk        what can be asked, and the answers
uses        what such a session is used for, as lines of the log
endpoints   the same as a table: paths, methods, records
http        the table as an ASGI application, and as an OpenAPI document
serving     all of that around a running agent
"""
