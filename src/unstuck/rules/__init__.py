"""One rule a file: a pure function from a record to findings, named like its file."""
