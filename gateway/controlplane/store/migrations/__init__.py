"""How the schema came to be, one step a file: run by migrate.py, never edited once released."""
