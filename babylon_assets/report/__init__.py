"""The report: the state of the loop as one HTML page, and its drawings. Pure: plain data in, HTML out."""
