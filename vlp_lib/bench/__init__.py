"""What is measured on the machine at hand. Not needed to understand the paper."""
