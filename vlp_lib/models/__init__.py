"""The two-stream model: vision, language and cross-modality encoders, their heads, and the model that joins them."""
