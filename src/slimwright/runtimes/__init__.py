"""The runtimes that will run the result: export, quantize, run, time."""
