"""MosMedData COVID19_1110: chest CT with severity."""
