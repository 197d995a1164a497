"""What people and programs are shown.

rows             guests as rows
table            tables that fit a terminal
set_result       what `set` did
progress_bar     a balloon on its way
events           QEMU's events
agent            what the agent says
journal          what the journal tells
ksm              KSM
comma_separated  CSV
figure           what a plot shows, whatever it is drawn with
axes             ticks of an axis
plots            the journal as a figure
svg              a figure as SVG
terminal_plot    a figure in characters
plot_values      a figure's values in words
simulation       simulated runs as rows
simulation_plot  simulated runs as a figure
man_page         `--help` as man(7) source
manual_chapters  the chapters of the manual
"""
