"""Studies on recorded data: `python -m experiments.studies.NAME --data DIR`. No model is run; the data is not ours."""
