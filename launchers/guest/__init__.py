"""The tiny guest of `launchers/tinyguest`: how it is built, booted and talked to; stdlib only."""
