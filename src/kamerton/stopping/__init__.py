"""When a training run should end: voters, patience, hard rules, and replay. No torch."""
