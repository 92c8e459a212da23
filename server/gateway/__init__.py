"""The gateway: what every HTTP request passes.

It knows no feature: modules hand it tables of routes and get typed calls.
"""
