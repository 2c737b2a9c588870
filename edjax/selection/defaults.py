"""What is chosen by where nothing is said: what `benchmarks.evidence.control` shows to save most (docs/evidence.md).

Nothing is imported here, so that the command line knows it without loading what chooses.
"""

STRATEGY = "facility_location"
NORMALISE = "whiten"  # one of WAYS
WAYS = ("l2", "whiten", "centre", "none")  # those of `edjax.kernels.measure`
WHITEN_DIMS = 200  # principal components; benchmarks.evidence.tuning tried others
