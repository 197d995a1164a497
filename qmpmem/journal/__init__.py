"""The journal: every round of the agent, for a day, to be asked afterwards and decided again.

deltas     a round as what changed since the one before (pure)
store      the file: bounded, and read while it is written
points     what rounds come to over a stretch of time (pure)
folding    rounds put together to such points (pure)
coarse     minutes and hours, for a month: a table of that file
ranges     a stretch of the past as a series of points
uses       what guests used at each hour of the last days: a table of that file
writer     the agent's end of it: a thread that never holds up a round
places     where it is
moments    times as people write them (pure)
history    what happened to one guest, quiet rounds folded together (pure)
replay     the recorded past decided again with other settings (pure)
"""
