"""Capturing a training state while training goes on: what is being copied, and the fence in front of every
write to it."""
