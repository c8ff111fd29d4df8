"""The version: one fact, which every part may know."""

__version__ = "0.1.0"
