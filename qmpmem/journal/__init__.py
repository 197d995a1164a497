"""The journal: every round of the agent, for a day, to be read afterwards and decided again.

deltas         a round as what changed since the one before (pure)
compression    how a row is compressed (pure)
values         JSON that is usable, or damage (pure)
database       the file as SQLite has it, which may be damaged or forged
damage         whether that file's bytes are what SQLite fails on
schema         which of its tables are ours
store          writes rounds into it, which stays bounded
reader         reads them, also while they are written
points         the sums and means of rounds over some time (pure)
aggregate      puts rounds together to such points (pure)
coarse_series  minutes and hours, for a month: a table of that file
ranges         a time of the past as a series of points
hourly_use     what guests used at each hour of the last days: a table of that file
writer         the agent's part of it: a thread that never delays a round
paths          the path of the journal
times          times as people write them (pure)
episodes       what happened to one guest, with quiet rounds put together (pure)
replay         the recorded past, decided again with other settings (pure)
"""
