"""Files, devices and processes of the operating system."""
