"""The demonstration: peers train a small GPT with DiLoCo, one of them is killed, and another one joins.

options      what may be chosen, and the schedule of events
data, model  bytes of text; a GPT of about half a million parameters
train        one peer: what a user's own training script looks like; peer: the process around it
orchestrate  a master and several peers on this machine, a kill, a join
record       what the peers said, and what follows from it
live         shows it while it happens
report, plot tables at the end, and a picture

Only data, model, train and peer import torch.
"""
