"""Trains the two models of the example and writes them beside this script: `python -m examples.scripts.train`.

Why: the committed files are not magic. They are pickles, as most scikit-learn models are, so conda.yml names the
versions that wrote them.
Shapes: both take float [N, 4] and give one of three species with its probability.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import joblib
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

HERE = Path(__file__).parent
SEED = 0
HELD_OUT = 0.4


def split() -> Any:
    """Rows and names of species: those to train with, and those that training never sees."""
    iris = load_iris()
    names = iris.target_names[iris.target]
    return train_test_split(iris.data, names, test_size=HELD_OUT, random_state=SEED, stratify=names)


def train(folder: Path) -> dict[str, float]:
    """Writes blue/model.joblib and green/model.joblib; the share of held-out rows that each gets right."""
    train_rows, held_out_rows, train_names, held_out_names = split()
    models = {
        "blue": LogisticRegression(max_iter=1000, random_state=SEED),
        "green": RandomForestClassifier(n_estimators=50, min_samples_leaf=2, random_state=SEED),
    }
    scores = {}
    for name, model in models.items():
        model.fit(train_rows, train_names)
        path = folder / name / "model.joblib"
        path.parent.mkdir(parents=True, exist_ok=True)
        joblib.dump(model, path, compress=3)
        scores[name] = float(model.score(held_out_rows, held_out_names))
    return scores


def main() -> None:
    for name, score in train(HERE).items():
        print(f"{name}: {score:.4f} of the held-out rows right")


if __name__ == "__main__":
    main()
