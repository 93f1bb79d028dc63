"""The command line of crossmed."""
