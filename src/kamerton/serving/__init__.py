"""From text to sound with the champion voice."""
