"""`internvl bench`: what a quant costs in quality, and what it saves in memory and time, with pictures."""
