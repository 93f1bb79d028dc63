"""The training conditions of CrossMed and Med-MAT as rules on sets of cells."""
