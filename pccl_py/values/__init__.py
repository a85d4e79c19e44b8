"""Names, dtypes and plain values as the checkpoint format has them, and its limits: what taking a state apart
and writing it down have in common. Needs neither the compiled core nor torch.
"""
