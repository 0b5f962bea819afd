"""Campaigns of faults: many random ones of a kind, each with an outcome that is allowed or not.

    python -m tests.campaigns.NAME --seconds=60
    python -m tests.campaigns.NAME --count=1000 --seed=1 --report=report.json
    python -m tests.campaigns.NAME --only=17 --seed=1

`tests/campaigns/frame.py` says what the outcomes are.
"""
