"""The agent's API: HTTP and JSON over a unix socket.

records             what passes between the agent and a client
addresses           where the agent's sockets are
client              asks the agent: a few lines over a socket, cheap to load
async_client        asks the agent from inside an event loop, and reads streams
messages            questions and answers as bytes
deadlines           how long a client waits
socket_choice       which socket a question goes to, and to which next
server_identity     whether the process that listens on a socket is the agent
agent_guest         a guest of the agent, used like `qmpmem.guests.guest.DirectGuest`
qmp_session         a QMP session with such a guest

sockets             the agent's sockets and their lock, made safely
socket_activation   sockets that systemd made
accepting           how many clients are accepted at a time
permissions         which processes may look, and which may change something
client_limits       how many clients there may be at once, and how often each user may ask
fair_places         who has to give a place where all are taken
bounded_connection  one connection with deadlines, and no more memory than its answer
connection          one client's connection: its user, and whether there is a place for it
request_body        the body of a request, read and checked
recent_rounds       the last decisions about each guest, and the last events of all
leases              room for guests that are about to start
handlers            what can be asked, and the answers
policy_constants    the numbers that the policy rests on
session_opening     a QMP session that a client waits for
qmp_log             what a QMP session is used for, as lines of the log
mistakes            mistakes of ours, as lines of the log
endpoints           the table of requests: paths, methods, records
application         the table as an ASGI application, and as an OpenAPI document
server              all of that around a running agent
"""
