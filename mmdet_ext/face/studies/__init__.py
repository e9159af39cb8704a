"""Studies of faces and digits behind the tools in `tools/face`."""
