"""Proof that the twins are the same functions: cells (what is compared), rungs (how), budgets (how closely).

The only package that imports both twins.
"""
