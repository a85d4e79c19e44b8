"""What goes wrong with the emulator itself."""

from __future__ import annotations


class NoEmulator(RuntimeError):
    """This machine cannot run it; the text names what is missing (root, /dev/net/tun, namespaces, g++)."""


class EmulatorDied(RuntimeError):
    """Its program has ended, or does not answer. Whoever was in its namespaces is without a network."""
