"""The plugins that ship with crossmed. Each folder has a light plugin.py; the code beside it is imported on use."""
