"""The web page, and metrics for Prometheus: a process of its own beside the agent.

fences       requests that are refused before anything is looked up (pure)
html         HTML that no text can break out of (pure)
board        one round as what the page shows (pure)
trail        the last minutes (pure)
pages        the pages as HTML (pure)
guest        the page of one guest (pure)
window       which part of the past a page shows (pure)
past         the past out of the journal, as a plot and as values
recent       the last minutes out of the journal, as the server starts
trying       a host that a visitor describes, played under all policies
playing      the program that plays it
once         questions that are asked once in a round
shapes       bars and small curves as SVG (pure)
keys         the token, and the visitors that have shown it
hub          follows the agent, and keeps what all visitors are shown
changes      what a visitor may change, passed on to the agent
requests     what passes between a visitor and the pages
scraping     metrics, as the agent writes them
answers      pages and refusals
views        what visitors look at
orders       what they change
application  paths
shipped      style sheet, script, icon, alerts and dashboard
visit        one visitor's connection, and the places for all of them
server       listens, and puts all of that together
service      the systemd unit

Theory of operation:
    This process has no right but to ask the agent, as any member of the group `qmpmem`: it may
    crash or be taken over, and no guest notices. Each round is made into HTML once, for all
    visitors; one that follows the rounds is sent the parts that changed. Nothing is kept of a
    visitor but a place.

    Plots are SVG that the server draws, as `qmpmem plot` does: they are there without JavaScript,
    for screen readers, and the same in every place. The script adds what a library for plots
    would: values at the pointer or the arrow keys, and a part of the past that is drawn over and
    shown alone. All of the script is 12 KB; uPlot alone, the smallest such library, is 51 KB that a
    browser has to load before it draws anything.
"""
