"""Tables, figures and an HTML page from the scores and logs of runs; needs no model and no GPU."""
