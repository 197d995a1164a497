"""The agent: watches the host and its guests, and moves memory to where it is needed.

watcher             one guest: its session, its events, what it is told
inquiry             asks one guest, and keeps what is known of it
guest_state         what is known of one guest
schedule            what one guest is asked when
pending_order       the size that one guest is to be told
guest_view          a guest's object in --json
pause               a wait that others can end
host_reader         the host, read in one go
process_memory      what each guest's process costs
cgroups             which cgroups are a guest's own
cgroup_usage        what those cgroups count
reclaimer           has the host reclaim memory of those cgroups
disk_reads          what a guest reads from its disks
finder              which guests there are
adopter             adopts guests by the rules of the configuration
requests            what operators asked for, kept over a restart
pins                guests that are kept at a size, and when that ends
leases              memory that is kept for guests that are about to start
unmet_rules         rules that promise a guest more than it was started with
habits              what guests usually use, read from the journal
loop                observe, decide, apply, publish
epochs              when a guest begins anew
report_intervals    how often each guest is asked what it uses
starting_size       the size with which a guest starts
session_lending     a guest's session, used by clients of the agent
wakeups             what ends the pause between two rounds early
threads             the threads that rounds use
garbage_collection  when Python's collector runs
locked_memory       keeps the agent's memory out of swap
descriptor_limit    how many guests there are descriptors for
system_user         the user of an agent that is not root
systemd_notify      what systemd is told
systemd_units       the units that run the agent
"""
