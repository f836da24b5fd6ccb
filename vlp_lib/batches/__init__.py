"""Batches: pairs of image and sentence, decoded, augmented, masked, padded."""
