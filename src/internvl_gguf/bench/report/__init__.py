"""Reports of a benchmark's results, for readers and programs; independent of how they were measured.

formats, markdown          JSON, JSON lines, CSV, Markdown
page, page_style, svg      one HTML page with charts
figures                    charts as files
charts                     the list of charts; point_charts, row_charts, axes, chart_labels and theme draw them
columns, legend, wording   shared by every format of the table
advice, pareto             the Pareto front, and which row to take
"""
