"""A wing: where the model looks (section IV-E2, figure 6). Not needed to understand the paper."""
