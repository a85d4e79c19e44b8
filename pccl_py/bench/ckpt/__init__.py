"""`bench ckpt`: what saving costs a training that goes on beside it, ours and others' in the same run."""
