"""An example of a crossmed model plugin."""
