"""Mutation testing: would the tests see it if a comparison, a sign or a constant were wrong?"""
