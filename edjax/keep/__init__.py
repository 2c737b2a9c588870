"""What a result rests on: artefacts that are whole or absent, errors that say what to do, stops that lose nothing.

store.py         atomic writes, one writer a directory, a manifest written last
verify.py        artefacts against their manifests
checkpoints.py   of a training run
signals.py       Ctrl-C and SIGTERM while there is something to save
progress.py      how far a long stage is
errors.py        what a user can cause, and its exit code
memory.py        how much there is, and running out of it in one line
compiled.py      where compiled programs are kept
"""
