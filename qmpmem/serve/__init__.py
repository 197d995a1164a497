"""The web page, and metrics for Prometheus: a process of its own beside the agent.

request_checks      requests that are refused before anything is looked up (pure)
requests            what passes between a visitor and the pages
html                HTML that no text can break out of (pure)
host_page           one round as what the page shows (pure)
guest_page          the page of one guest (pure)
pages               the pages as HTML (pure)
small_plots         bars and small curves as SVG (pure)
recent_past         the last minutes (pure)
journal_start       the last minutes out of the journal, as the server starts
time_range          which part of the past a page shows (pure)
past                the past out of the journal, as a plot and as values
simulate_page       a host that a visitor describes, played under all policies
simulate_process    the program that plays it
agent_follower      follows the agent, and keeps what all visitors are shown
once_per_round      questions that are asked once in a round
scrape              metrics, as the agent writes them
tokens              the token, and the visitors that have shown it
token_guesses       wrong tokens, answered slowly
changes             what a visitor may change, passed on to the agent
responses           pages and refusals
get_handlers        what visitors look at
post_handlers       what they change
application         paths
static_files        style sheet, script, icon, alerts and dashboard
visitor_connection  one visitor's connection, and the places for all of them
server              listens, and puts all of that together
systemd_unit        the systemd unit

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
