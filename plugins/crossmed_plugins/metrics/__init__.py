"""Accuracy and its relatives for options, Dice, cIoU and gIoU for masks."""
