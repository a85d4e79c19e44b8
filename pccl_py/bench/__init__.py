"""Measurements: `python -m pccl_py bench NAME`, one module here per name.

Each runs real processes, one per peer, and checks the values that it times.
"""
