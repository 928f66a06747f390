"""The Babylon game: its tables are read, its trades are valued by its own arithmetic, answers by its record."""
