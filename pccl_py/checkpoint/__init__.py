"""Checkpoints on disk: the format (`format.py` documents it), its folder, and what reads and checks it.

What the `ckpt` command lists, checks and converts with imports neither the compiled core nor, before a torch
object appears, torch. `checkpointer.py` and what saves and loads beside a training need both.
"""
