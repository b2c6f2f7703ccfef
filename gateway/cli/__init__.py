"""The command `gateway`: argv to the functions that do the work, which are loaded when a command needs them."""
