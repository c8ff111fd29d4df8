"""Backups: every row of one snapshot in one file, the same for both databases.

`archives` owns the file, `rows` what goes into it and comes out of it. Neither knows who asks.
"""
