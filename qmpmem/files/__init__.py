"""Files, directories and sockets, opened so that no other user can lead this process elsewhere.

directories     directories that no other user can exchange
state_files     files that keep state: written whole, read only where no other user could write
obstacles       what keeps a file from being put in place, as an error
sockets         unix sockets with a name and a mode
defaults        /etc/default/qmpmem
launcher_paths  where the launchers are
asynchronous    one file, read or written from inside an event loop
"""
