"""What every command uses: how it is found, run and printed, and how it fails."""
