"""Trying out a policy: simulated hosts and guests, and a loop with any policy. Pure, no clock.

loads     what programs want over time
spec      what guests and hosts are made of
kinds     kinds of guests, by name
guest     a guest that runs
supply    what a host has to give in a step
host      a host that runs, with swap, pressure, and merging (ksm)
reports   what is told of a guest
rivals    what others do about memory, beside what we do: proxmox, mom, ksmtuned
movable   what those have in common
loop      policy and host, in turn
worlds    hosts and guests by chance
tally     what came of a run
keys      what a scenario may say
scenario  a described host, from a file
trace     a run written down, to be drawn
"""
