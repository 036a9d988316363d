"""Reports of a benchmark's results, for readers and programs; independent of how they were measured.

formats, markdown          JSON, CSV, Markdown
page, page_style, svg      one HTML page with charts
figures                    charts as files
chart, charts              which charts there are: point_charts, row_charts; axes, theme draw them
columns, legend, wording   what every form of the table has in common
advice, pareto             which rows no other beats, and which to take
"""
