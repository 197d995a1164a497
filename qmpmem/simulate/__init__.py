"""Trying out a policy: simulated hosts and guests, and a loop with any policy. Pure, no clock.

loads           what programs want over time
spec            what guests and hosts are made of
guest_types     kinds of guests, by name
guest           a guest that runs
memory_supply   what a host can give in a step
host            a host that runs, with swap and pressure
ksm             merging on such a host
qemu_reports    what QEMU and the host tell of a guest
policy_table    our policy and others, as functions of one shape
proxmox         what Proxmox VE does
mom             what oVirt's MOM does
ksmtuned        what ksmtuned does
policy_helpers  what those have in common
run             policy and host, in turn
days            what guests used on the days before
random_worlds   hosts and guests by chance
results         the results of a run
scenario_keys   the keys of a scenario
scenario        a described host, from a file
trace           a run written down, to be drawn
"""
