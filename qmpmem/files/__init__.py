"""Files, directories and sockets, opened so that no other user can lead this process elsewhere."""
