"""Each figure that the README or a note gives comes from a command here."""
