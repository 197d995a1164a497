"""Records of plain values that pass between the parts, and rules about them. Pure."""
