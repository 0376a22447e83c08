"""Kinds of learning problems that several data sets share."""
