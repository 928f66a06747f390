"""Programs that print pages and pictures of the documentation. Tests compare what they print with the pages."""
