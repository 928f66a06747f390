"""Homes of many windows for a bench of pages: how they are made, and how their pages are asked."""
