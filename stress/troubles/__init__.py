"""What happens to a run beside kills: each sort draws its times and victims from the seed before the run
begins, and promises what must come of it."""
