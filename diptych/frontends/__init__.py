"""Foreign models -> Graph: one folder for each framework, a table of converters in each."""
