"""Guests without an agent: which there are, what they use, and how one is moved or adopted."""
