"""Before a long run: is the data there, is the installation whole, does it fit? Not needed to understand the paper."""
