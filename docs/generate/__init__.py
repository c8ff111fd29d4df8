"""Writes the parts of the reference that follow from the code.

Owns the blocks between `<!-- generated: name -->` and `<!-- end -->` in the pages under `docs`;
each module here has those of one part of the program. Must not hold a fact of its own: names,
defaults, sentences and shapes come from the program. What stands around the blocks is written by
hand and stays.

    python -m docs.generate            rewrites the blocks
    python -m docs.generate --check    says which pages are out of date, and fails if any is

`tests/tidy/test_docs.py` does the latter.
"""
