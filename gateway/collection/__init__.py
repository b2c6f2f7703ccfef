"""Data collection: copies of what was asked, answered and computed, kept as JSON lines. Shared by both planes."""
