"""What finished runs say: scores, intervals, tests, verdicts."""
