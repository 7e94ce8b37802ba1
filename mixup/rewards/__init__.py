"""Rewards of a distilled sample: pure functions of text, vectors and posteriors, each in [0, 1].

The same functions score samples in a refresh and rollouts in training, so that the filter and the
trainer cannot disagree, but where a refresh asks for another predictor of quality.
"""
