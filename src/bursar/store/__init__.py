"""All SQL of the product, and nothing else: tables, transactions, queries, migrations.

One file a noun. Functions take a transaction first and keywords after it; they decide nothing that
a person could disagree with (that is `service`) and keep nothing between calls.
"""
