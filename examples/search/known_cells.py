"""LSTM and GRU, trained as the cells of `cell.py` are, to compare with.

unstuck search --sampler random --evaluations 2 examples/search/known_cells.py
"""

from cell import trained  # in this folder

from unstuck.search.space import Draw
from unstuck.training import Training

MAPS = {"lstm": 4, "gru": 3}


def space(draw: Draw) -> str:
    """One or the other."""
    return draw.choice("cell", list(MAPS))


def training(name: str) -> Training:
    """Of a cell with that name."""
    return trained(name, maps=MAPS[name])
