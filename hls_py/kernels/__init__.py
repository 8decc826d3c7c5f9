"""The element-wise functions of the accelerator, each written once (see ``hls_py.dataflow``)."""
