"""Effective end-to-end vision language pretraining with semantic visual loss (arXiv 2301.07236), executable."""

__version__ = "0.2.0.dev0"
