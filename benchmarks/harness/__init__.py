"""What every measurement shares: timing side by side, data from a seed, what a program executed and would cost."""
