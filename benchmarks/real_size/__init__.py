"""The default at the sizes that people train: images, texts, graphs, tables, and what nobody labelled."""
