"""`internvl bench --cascade`: at which confidence a bigger model is to be asked, and what that saves and loses.

answers     every question asked of every model: right or not, how sure, how long it took
measure     the models one after the other, each in a process of its own; results of earlier runs
policy      what a cascade with given thresholds would have answered, and when
fit         thresholds fitted to questions, and tried on questions that they were not fitted to
intervals   how certain a difference is
results     the rows of the report; rows makes them
advice      what to take, in a sentence
report, page, chart    the report in its forms
"""
