"""The edges: QMP and the kernel. Nothing else in the package talks to the outside world.

kernel         /proc and /sys
addresses      the kinds of addresses of a monitor
unix_socket    connects to the process that a socket should lead to
loopback       QMP over TCP, on this host
sock_diag      which process is at the other end of a unix socket
tcp_diag       which user is at the other end of a TCP connection
qmp            one QMP session: the only user of qemu.qmp
human_monitor  the human monitor, as far as it can replace QMP
channel        a session of either kind
quick_query    one question to many guests, without an event loop
commands       the QMP commands that are used
replies        the shapes of their answers
events         QEMU's events, and the queue in which they wait
messages       what passes over a session
receiver       what is done with each line
limits         how long a peer may take, and how much it may send
errors         why there is no session
guest_devices  what else decides whether a balloon frees anything
hotplug        plugs a balloon into a running guest
kvm            whether KVM can be used here
"""
