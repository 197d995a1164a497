"""The agent: watches the host and its guests, and moves memory to where it is needed.

watcher   one guest: its session, its events, what it was told
survey    the host, and what each process costs, read in one go
finder    which guests there are
orders    what operators asked for, kept over a restart
loop      observe, decide, apply, publish
notify    what systemd is told
capacity  how many guests there are descriptors for
"""
