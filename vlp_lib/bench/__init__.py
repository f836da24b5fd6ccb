"""A wing: what is measured on the machine at hand. Not needed to understand the paper.

`record` writes what the benchmarks measure with `vlp_lib.clock`; `made_up` and `step` are what they measure.
"""
