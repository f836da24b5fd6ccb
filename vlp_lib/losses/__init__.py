"""The five losses of the paper, a file each, and the interface of a visual loss."""
