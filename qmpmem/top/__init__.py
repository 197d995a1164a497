"""`qmpmem top`: all guests on one screen, now and at any time that the journal has.

text           lines of styled text, and how sizes fit into few columns
figures        a round as the figures that are shown: one record for each guest, one for the host
history        what the last rounds tell of each guest: its plot, its last decisions, its target
bar            a guest's memory in one line
plot           a guest's memory over time, in braille
filters        which guests are shown
columns        which figures are shown of a guest, in which order
header         the lines about the host
why_pane       why a guest has what it has
change_dialog  a change and its consequences, before it is made
view_state     what the user chose to see
keys           what a key does to that
screen         all of that as the lines of one screen
changes        which columns of a line are drawn anew
export         the same figures for programs: CSV and JSON
settings       the file that keeps what the user chose
session        what the screen shows now: takes in rounds and keys, and sends changes
app            the terminal: the only module that imports textual

Rules of this package:
    All but settings, session and app is pure. A figure that is not known is a dash, never 0.
"""
