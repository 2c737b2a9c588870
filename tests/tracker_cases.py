"""Modules in the place of tensorboardX, wandb and trackio, which remember what they were told."""

import sys
import types

import pytest


class Fake(types.ModuleType):
    """Any of the three packages: what it was told, a list a run."""

    def __init__(self, name):
        super().__init__(name)
        self.runs, self.told, self.closed = [], [], 0

    def init(self, **settings):
        self.runs.append(settings)
        return self

    def SummaryWriter(self, logdir, filename_suffix):
        return self.init(logdir=logdir)

    def log(self, values, step):
        self.told += [(name, step, value) for name, value in values.items()]

    def add_scalar(self, name, value, step):
        self.told.append((name, step, value))

    def flush(self):
        pass

    def finish(self):
        self.closed += 1

    close = finish


@pytest.fixture
def fakes(monkeypatch):
    made = {n: Fake(n) for n in ("tensorboardX", "wandb", "trackio")}
    for name, module in made.items():
        monkeypatch.setitem(sys.modules, name, module)
    return made
