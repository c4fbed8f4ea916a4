"""Classify lines by language: one charrnn model per language, compared with character n-grams.

The texts come with charrnn's dependencies: Python, type stubs, C++ headers, CMake, JavaScript, and the English of
licences and readmes. The first four fifths of each text are for training, `--size` characters at most. The lines to
classify are drawn at random from the last fifth. They have at least ten characters and do not occur in the training
text. The baseline is scikit-learn's TF-IDF of 1- to 4-grams of characters with logistic regression, trained on the
same text. It is left out if scikit-learn is not installed.
"""

import argparse
import sys
import time
from collections.abc import Iterator
from importlib.metadata import distributions
from pathlib import Path

import numpy as np
from side_by_side import describe_machine, table

import charrnn
from charrnn.data.lines import LineFragment
from charrnn.evaluation.line_scores import LineScorer
from charrnn.rnn.torch_scorer import torch_scorer

MIN_LENGTH = 10  # characters of a line
HEADER = ("", "lines", "accuracy, %", "training, s", "lines/s")


def find_files() -> dict[str, list[Path]]:
    """Return the files of each language, sorted by path."""
    import matplotlib
    import torch

    torch_dir = Path(torch.__file__).parent
    web_dir = Path(matplotlib.__file__).parent / "backends" / "web_backend"
    english = [
        Path(str(file.locate()))
        for distribution in distributions()
        for file in distribution.files or ()
        if file.suffix in (".md", ".rst") or file.name in ("METADATA", "LICENSE", "LICENSE.txt")
    ]
    return {
        "python": sorted(Path(argparse.__file__).parent.glob("*.py")),
        "stubs": sorted(torch_dir.rglob("*.pyi")),
        "c++": sorted((torch_dir / "include").rglob("*.h")),
        "cmake": sorted(torch_dir.rglob("*.cmake")),
        "javascript": sorted(web_dir.rglob("*.js")),
        "english": sorted(file for file in english if file.is_file()),
    }


def read_texts(size: int) -> Iterator[tuple[str, str, list[str]]]:
    """Yield the name of each language, the training text, and the lines to draw from."""
    random = np.random.default_rng(0)
    for name, paths in find_files().items():
        if not paths:
            continue
        random.shuffle(paths)  # type: ignore[arg-type]
        text = ""
        for path in paths:
            text += path.read_text(encoding="utf-8", errors="ignore").replace("\r", "")[: size // 5]
            if len(text) > size * 5 // 4:
                break
        border = text.rindex("\n", 0, len(text) * 4 // 5) + 1
        training_lines = set(text[:border].splitlines())
        unseen = {line for line in text[border:].splitlines() if len(line.strip()) >= MIN_LENGTH} - training_lines
        yield name, text[:border][-size:], sorted(unseen)


def main() -> None:
    """Train the models, classify the lines and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=300_000, help="characters of each training text (300000)")
    parser.add_argument("--lines", type=int, default=300, help="lines of each language to classify (300)")
    parser.add_argument("--minutes", type=float, default=0.5, help="minutes of training for each language (0.5)")
    parser.add_argument("--quick", action="store_true", help="check only that the script works")
    arguments = parser.parse_args()
    budget = {"minutes": arguments.minutes}
    if arguments.quick:
        arguments.size, arguments.lines = 5000, 5
        budget = {"steps": 30, "hidden": 16, "layers": 1, "engine": "torch", "precision": "fp32", "threads": 1}
    random = np.random.default_rng(0)
    training, lines, labels = {}, [], []
    for name, text, unseen in read_texts(arguments.size):
        training[name] = text
        drawn = [unseen[index] for index in random.permutation(len(unseen))[: arguments.lines]]
        lines += drawn
        labels += [name] * len(drawn)
        print(f"{name}: {len(text):,} characters, {len(drawn)} lines to classify", file=sys.stderr)
    rows = [measure_charrnn(training, lines, labels, budget)]
    if not arguments.quick and (ngrams := measure_ngrams(training, lines, labels)):
        rows.append(ngrams)
    print(describe_machine(languages=len(training), lines=len(lines)), "\n")
    print(table(HEADER, rows))


def make_row(
    name: str, predicted: list[str], labels: list[str], training_seconds: float, seconds: float
) -> list[str | float]:
    """Return one row of the table."""
    correct = np.array(predicted) == np.array(labels)
    return [name, len(labels), 100 * correct.mean(), training_seconds, len(labels) / seconds]


def measure_charrnn(
    training: dict[str, str], lines: list[str], labels: list[str], budget: dict[str, object]
) -> list[str | float]:
    """Train one model per language, and classify each line by the model that assigns it the highest probability."""
    started = time.perf_counter()
    models = {name: charrnn.train(text, documents="lines", **budget).checkpoint for name, text in training.items()}
    trained = time.perf_counter()
    fragments = [LineFragment(line.encode()) for line in lines]
    nats = {
        name: [score.nats for score in LineScorer(model, torch_scorer(model)).score(fragments)]
        for name, model in models.items()
    }
    names = list(nats)
    predicted = [names[index] for index in np.argmin([nats[name] for name in names], axis=0)]
    return make_row("charrnn", predicted, labels, trained - started, time.perf_counter() - trained)


def measure_ngrams(training: dict[str, str], lines: list[str], labels: list[str]) -> list[str | float] | None:
    """Train the baseline on lines and classify; return None if scikit-learn is not installed."""
    try:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
    except ImportError:
        print("scikit-learn is not installed: no comparison with n-grams", file=sys.stderr)
        return None
    training_lines = [(line, name) for name, text in training.items() for line in text.splitlines() if line.strip()]
    classifier = make_pipeline(
        TfidfVectorizer(analyzer="char", ngram_range=(1, 4), sublinear_tf=True, lowercase=False),
        LogisticRegression(max_iter=300),
    )
    started = time.perf_counter()
    classifier.fit(*zip(*training_lines, strict=True))
    trained = time.perf_counter()
    predicted = list(classifier.predict(lines))
    return make_row("n-grams", predicted, labels, trained - started, time.perf_counter() - trained)


if __name__ == "__main__":
    main()
