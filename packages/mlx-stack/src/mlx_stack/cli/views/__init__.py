"""What a person sees of a result, and its JSON fields where several commands share them."""
