"""What the agent knows as metrics for Prometheus, made of rounds.

families      what there is: names, kinds, help, and where each value is from
totals        what adds up over rounds
text          a round as text, in both of Prometheus's formats
rendered      a round as bytes, made once
content_type  which of the forms a scraper takes

Rules of this package:
    Pure. A value that is not known is absent, never 0. Labels have few values, or one for each
    guest; no series tells what KSM merges of one guest, from which another could learn what is in
    that guest's memory.

Theory of operation:
    The text is made at most once in a round, and kept: a scraper that asks twice gets the same
    bytes. It is our own text and not prometheus_client's, which for 500 guests takes 66 ms and
    11 MiB where this takes 15 ms, in a process that moves memory meanwhile. The tests read it with
    that library's parsers and with promtool.
"""
