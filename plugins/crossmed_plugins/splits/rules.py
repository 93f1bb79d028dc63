"""The rules. `share(cell)` is the number of factors a cell shares with the target; the target itself shares 3."""

from __future__ import annotations

from crossmed_core.splits import CellRule

in_domain = CellRule("in-domain", lambda target, cells, share: [cell for cell in cells if cell == target])
related = CellRule("related", lambda target, cells, share: [cell for cell in cells if share(cell) == 2])
unrelated = CellRule("unrelated", lambda target, cells, share: [cell for cell in cells if share(cell) <= 1])
zero_overlap = CellRule("zero-overlap", lambda target, cells, share: [cell for cell in cells if share(cell) == 0])
all_data = CellRule("all-data", lambda target, cells, share: cells)
