"""Scores by the official rules, and what is measured of a model: retrieval, time, attention."""
