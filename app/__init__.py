"""Everything a person touches: the command, the dashboard, figures, jobs."""
