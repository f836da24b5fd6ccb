"""Readers of data sets in their official formats, and the embedded corpus. Not needed to understand the paper."""
