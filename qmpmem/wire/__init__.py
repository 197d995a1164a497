"""The edges: QMP and the kernel. Nothing else in the package talks to the outside world."""
