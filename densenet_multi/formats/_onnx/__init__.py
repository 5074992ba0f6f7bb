"""Read the networks in ONNX files: content.py parses a file, graph.py finds a DenseNet in it."""
