"""Ratings with planted errors: the setting of spec/lm-mixup.md, section 8.3."""

import numpy as np

POOL = np.array([18_626, 44_401, 86_132, 87_975, 59_969, 3_829])
PRIOR = POOL / POOL.sum()
NEIGHBORS = 16
DIAGONAL = np.array([0.60, 0.62, 0.66, 0.70, 0.72, 0.65])


def true_matrix(decay=0.5):
    """The spec's diagonal; what is left falls with the distance from the true class."""
    places = np.arange(6)
    spread = decay ** np.abs(places[:, None] - places)
    np.fill_diagonal(spread, 0)
    matrix = (1 - DIAGONAL)[:, None] * spread / spread.sum(axis=1, keepdims=True)
    np.fill_diagonal(matrix, DIAGONAL)
    return matrix


def rated(truth, matrix, random):
    """A rating of each true class."""
    edges = np.cumsum(matrix, axis=1)[truth]
    return np.minimum((random.random((*truth.shape, 1)) > edges).sum(axis=-1), len(matrix) - 1)


def triples(rows, *, clusterability=1.0, seed=0, matrix=None, prior=PRIOR):
    """Own, first and second neighbor's ratings; a neighbor that misses has a random true class."""
    random = np.random.default_rng(seed)
    matrix = true_matrix() if matrix is None else matrix
    truth = np.repeat(random.choice(len(prior), rows, p=prior)[:, None], 3, axis=1)
    missed = random.random((rows, 2)) >= clusterability
    truth[:, 1:][missed] = random.choice(len(prior), missed.sum(), p=prior)
    return rated(truth, matrix, random)


def copied(found, share, seed=0):
    """The triples of a pool in which the neighbors of so many rows are copies of them."""
    copies = np.random.default_rng([seed, 1]).random(len(found)) < share
    return np.where(copies[:, None], found[:, :1], found), copies


def topics(rows, *, seed=0, matrix=None, prior=PRIOR, width=24):
    """Unit vectors in topics of about ten rows that share a true class; classes and ratings."""
    random = np.random.default_rng(seed)
    matrix = true_matrix() if matrix is None else matrix
    count = rows // 10
    topic = random.integers(count, size=rows)
    centers = random.normal(size=(count, width))
    vectors = centers[topic] + 0.3 * random.normal(size=(rows, width))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    truth = random.choice(len(prior), count, p=prior)[topic]
    return vectors.astype(np.float32), truth, rated(truth, matrix, random)


def voted(rows, *, shared, seed=0):
    """Votes of neighbors in topics; a share of each topic's rows has the topic's true class."""
    random = np.random.default_rng(seed)
    matrix = true_matrix()
    theirs = np.repeat(random.choice(6, (rows, 1), p=PRIOR), 1 + NEIGHBORS, axis=1)
    missed = random.random(theirs.shape) >= shared
    theirs[missed] = random.choice(6, missed.sum(), p=PRIOR)
    heard = rated(theirs, matrix, random)
    votes = (heard[:, 1:, None] == np.arange(6)).sum(axis=1)
    return theirs[:, 0], votes, heard[:, 0]


def calibration_error(chance, happened, bins=10):
    """The expected calibration error: |mean chance - share| over ten bins, weighted by rows."""
    place = np.minimum((chance * bins).astype(int), bins - 1)
    gaps = np.bincount(place, weights=chance - happened, minlength=bins)
    return np.abs(gaps).sum() / len(chance)
