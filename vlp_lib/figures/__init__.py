"""Figures and tables: functions from what runs have written to a matplotlib figure or a data frame."""
