"""What a simulated host can give in one step: free memory first, then what it swaps out."""


class MemorySupply:
    """What the host can give in one step, all guests together.

    Attributes:
        free: bytes that it can give at once.
        room: bytes of its swap that are not taken yet.
        disk: bytes that its swap can move.
        most: bytes that its swap could move when the step began.
        owed: bytes that were given and have to be swapped out for that.
        swap_in: bytes that were read back so far.
        refused: bytes of new memory that were asked for and could not be given.
    """

    __slots__ = ("disk", "free", "most", "owed", "refused", "room", "swap_in")

    def __init__(self) -> None:
        self.free = self.room = self.disk = 0.0
        self.owed = self.refused = self.swap_in = 0.0
        self.most = 1.0

    def begin(self, free: float, disk: float, room: float) -> None:
        """Begin a step with these sizes."""
        self.free, self.disk, self.room = max(0.0, free), disk, max(0.0, room)
        self.owed = self.refused = self.swap_in = 0.0

    def take(self, amount: float) -> float:
        """Take memory, and return how much of it can be had: what is free, then by swapping out."""
        found = min(amount, self.free)
        self.free -= found
        if found < amount:
            swapped = min(amount - found, self.disk, self.room)
            self.disk -= swapped
            self.room -= swapped
            self.owed += swapped
            found += swapped
        return found
