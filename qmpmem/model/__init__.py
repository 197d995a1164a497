"""Records of plain values that pass between the parts, and rules about them. Pure.

config       what the administrator wants
names        ids and names of guests
guest        what was seen of one guest
sizes        what its memory is made of
escapes      text that is safe to show
sanitise     the check of numbers that a guest writes
halts        why a guest that does not run cannot move
obstacles    why a balloon frees nothing of a guest
bounds       how far a guest's memory may be moved
host         what was seen of the host
ksm          what was seen of KSM
observation  all that one round saw
round        what shall be done, why, and what was done
"""
