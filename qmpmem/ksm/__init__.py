"""Kernel samepage merging: what it does for the guests, and how to steer it.

rules      which values the kernel takes, and in which order they are written   (pure)
presets    quiet, balanced, eager                                               (pure)
verdict    is it worth its effort?                                              (pure)
domains    who may merge with whom                                              (pure)
ledger     what was there before us, and what we made of it
hand       carries changes out: all or nothing, read back
unmerge    takes everything apart again, where there is room for it
guests     what merging does for each guest
"""
