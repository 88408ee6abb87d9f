"""Speak to people: reports, pictures, pages and exports of an analysis."""
