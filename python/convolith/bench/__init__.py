"""Benchmarks: layer lists, timing, float64 truth, tables and plots.

`layers` reads the layer lists, `measure` times them, `truth` judges the results, `report` and
`plots` show them. The command `convolith bench` puts them together.
"""
