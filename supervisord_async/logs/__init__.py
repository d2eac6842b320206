"""(docstring: what this layer is for)"""
