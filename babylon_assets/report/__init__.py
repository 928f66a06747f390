"""The report: the state of the loop as one page. Pure: plain data in, HTML out; nothing here reads tables or files."""
