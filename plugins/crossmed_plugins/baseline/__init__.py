"""Models that do not look at the image: chance, majority, question-only, and the oracle that looks at the answer."""
