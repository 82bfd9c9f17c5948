"""What every layer needs: errors, files, progress, environment, executor I/O."""
