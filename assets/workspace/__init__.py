"""What lies in `$SLMREC_HOME`, and by which rules it is written, found and used again."""
