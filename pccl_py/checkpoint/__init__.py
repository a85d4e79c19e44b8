"""Checkpoints on disk: the format (`format.py` documents it), its folder, and what reads and checks it.

Nothing here imports torch before a torch object appears, nor the compiled core.
"""
