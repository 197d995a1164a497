"""Guests without an agent: which there are, what they use, and how one is moved or adopted.

rundir             the run directory: records that the launcher leaves
inventory          which guests there are
access             which users see and change which guests
guest              one guest, over its own QMP socket
read_guest         all that can be seen of it
overview           a short look at all guests
script             the language of `qmpmem script`
qemu_binaries      which processes run a QEMU
qemu_processes     where the monitors of these are
qemu_command_line  what their command lines tell
managers           which other program manages a QEMU
discover           what can be done about each
adopt              makes a guest of such a QEMU
"""
