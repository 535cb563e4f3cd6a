"""What measures: rivals side by side (`peers`), cold start, the models they run (`suites`)."""
