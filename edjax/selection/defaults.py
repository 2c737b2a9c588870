"""What is chosen by where nothing is said: `benchmarks.evidence.control` shows what saves most, docs/evidence.md how much.

Nothing is imported here, so that the command line knows it without loading what chooses.
"""

STRATEGY = "facility_location"
NORMALISE = "whiten"
WHITEN_DIMS = 200  # principal components; benchmarks.evidence.tuning tried others
