"""Decoders written in Python under any bytes; those in C++ are in tests/cpp/fuzz. The corpus of both is in
tests/corpus: one input per line, in hexadecimal.

    python -m tests.fuzz [TARGET ...] --seconds 60 [--engine atheris] [--keep]
"""
