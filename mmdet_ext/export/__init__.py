"""Networks of torch written as files that other runtimes read."""
