"""`internvl bench --best-of`: what several answers to a question, of which a judge chooses one, are worth.

settings                   how many answers, how they are sampled, who judges
estimators                 what fewer answers would have got, from the answers that are there
critic_files               critics that judge, by their files
measure, judges, timing    ask, judge, and take the time
tables, charts, wording    its part of the reports
"""
