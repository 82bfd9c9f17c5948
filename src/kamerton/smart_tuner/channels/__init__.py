"""The ways an alert reaches a person, each a class of its own behind one protocol."""
