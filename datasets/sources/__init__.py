"""Where the real data lie: TFF's files, TFDS's files, and the choice between them and stand-ins."""
