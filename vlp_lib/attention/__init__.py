"""Where the model looks (section IV-E2, figure 6)."""
