"""The engines' environments: installed, checked, upgraded, rolled back."""
