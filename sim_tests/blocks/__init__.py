"""One file a block: rtl/x/y.py is tested by test_y.py."""
