"""The web page, and metrics for Prometheus: a process of its own beside the agent.

fences       requests that are refused before anything is looked up (pure)
html         HTML that no text can break out of (pure)
board        one round as what the page shows (pure)
trail        the last minutes (pure)
pages        the pages as HTML (pure)
guest        the page of one guest (pure)
shapes       bars and small curves as SVG (pure)
keys         the token, and the visitors that have shown it
hub          follows the agent, and keeps what all visitors are shown
changes      what a visitor may change, passed on to the agent
requests     what passes between a visitor and the pages
scraping     metrics, as the agent writes them
application  paths and answers
shipped      style sheet, script, icon, alerts and dashboard
visit        one visitor's connection, and the places for all of them
server       listens, and puts all of that together
service      the systemd unit

Theory of operation:
    This process has no right but to ask the agent, as any member of the group `qmpmem`: it may
    crash or be taken over, and no guest notices. Each round is made into HTML once, for all
    visitors; one that follows the rounds is sent the parts that changed. Nothing is kept of a
    visitor but a place.
"""
