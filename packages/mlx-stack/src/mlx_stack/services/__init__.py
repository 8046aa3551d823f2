"""Services: put together, started, stopped, watched, and how they do."""
