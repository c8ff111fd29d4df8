"""The parts of the API, one file each: results, described calls, and the two faces of them.

A file owns its noun. A function of it describes one call; the classes at its end list the calls as
methods, blocking and awaited, and must list the same.
"""
