"""From files in the official formats to batches."""
