"""Kernel samepage merging: what it does for the guests, and how to steer it.

rules           which values the kernel takes, and in which order they are written   (pure)
presets         quiet, balanced, eager                                               (pure)
verdict         whether merging is worth its effort                                  (pure)
domains         which guests may merge with each other                               (pure)
boot            what KSM shall be when the host starts                               (pure)
ledger          the values that we found, and those that we wrote
apply           carries changes out: all or nothing, read back
unmerge         unmerges everything, where there is room for it
guest_savings   what merging does for each guest
status_records  what `qmpmem ksm status` shows                                       (pure)
status_report   puts that together
systemd_unit    the unit that sets KSM up at boot
"""
