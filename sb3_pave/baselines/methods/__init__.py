"""The methods, one file each: a loss or a rule as a pure function with its formula and source, and its arguments."""
