"""Reads what searches found: fronts, figures, reports. No torch, no ray."""
