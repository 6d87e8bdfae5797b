"""What is killed, hangs or is full while something is played, and what is left: `python -m experiments.faults`."""
