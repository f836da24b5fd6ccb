"""A wing: what is measured on the machine at hand. Not needed to understand the paper.

`rows` are what `vlp bench` compares, `plain` is what with, `table` how.
"""
