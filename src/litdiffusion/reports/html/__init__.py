"""Self-contained pages: blocks, charts as SVG, embedded pictures, one template and one stylesheet. Imports no torch."""
