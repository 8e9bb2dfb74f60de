"""Shows on real runs how far the statistics of a comparison can be trusted. `page` writes docs/statistics.md."""
