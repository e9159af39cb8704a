"""The package's version, kept where setup.py can read it without importing the package."""

__version__ = '0.1.0'
