"""Tests of the strixbox command that runs on the box."""
