"""The models of the step suites as plain functions of {parameter name: array}, in torch and in JAX.

Parameter names are minillm's, so that all start from the same weights. Functions, not modules: nothing between the
library and its operations.
"""
