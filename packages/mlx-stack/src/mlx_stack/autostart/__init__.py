"""The watchdog under launchd: installed, looked at, taken away."""
