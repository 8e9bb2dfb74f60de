"""Proves that the twins are the same functions.

`cases` lists the models that are compared, `checks` what is compared, `tolerances` how closely, and `suite` runs them.
This is the only package that imports both twins.
"""
