"""Which language is this line in? A model for each, by `charrnn classify`, against a classifier of character n-grams.

The languages are those of texts that come with charrnn's own dependencies: Python, its type stubs, C++ headers,
CMake, JavaScript, and the English of licences and readmes. The first four fifths of each text (at most `--size`
characters of them) are for training, lines from the rest, drawn at random, are to be told apart; no line of less than
ten characters, and none that stands in a training text. The rival is scikit-learn's: TF-IDF of 1- to 4-grams of
characters and logistic regression, on the same lines (`pip install scikit-learn`; left out where that is missing).
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

SITE = Path(charrnn.__file__).parent.parent
LEAST = 10  # characters of a line
HEADER = ("", "lines", "accuracy, %", "training, s", "lines/s")


def files() -> dict[str, list[Path]]:
    """The files of each language, sorted by name."""
    import matplotlib
    import torch

    torch_folder = Path(torch.__file__).parent
    web = Path(matplotlib.__file__).parent / "backends" / "web_backend"
    english = [
        Path(str(file.locate()))
        for distribution in distributions()
        for file in distribution.files or ()
        if file.suffix in (".md", ".rst") or file.name in ("METADATA", "LICENSE", "LICENSE.txt")
    ]
    return {
        "python": sorted(Path(argparse.__file__).parent.glob("*.py")),
        "stubs": sorted(torch_folder.rglob("*.pyi")),
        "c++": sorted((torch_folder / "include").rglob("*.h")),
        "cmake": sorted(torch_folder.rglob("*.cmake")),
        "javascript": sorted(web.rglob("*.js")),
        "english": sorted(file for file in english if file.is_file()),
    }


def texts(size: int) -> Iterator[tuple[str, str, list[str]]]:
    """The name of each language, its training text, and lines to tell."""
    random = np.random.default_rng(0)
    for name, paths in files().items():
        if not paths:
            continue
        random.shuffle(paths)  # type: ignore[arg-type]
        text = ""
        for path in paths:
            text += path.read_text(encoding="utf-8", errors="ignore").replace("\r", "")[: size // 5]
            if len(text) > size * 5 // 4:
                break
        border = text.rindex("\n", 0, len(text) * 4 // 5) + 1
        known = set(text[:border].splitlines())
        fresh = sorted({line for line in text[border:].splitlines() if len(line.strip()) >= LEAST} - known)
        yield name, text[:border][-size:], fresh


def main() -> None:
    """Trains the models, tells the lines apart and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=300_000, help="characters of each training text (300000)")
    parser.add_argument("--lines", type=int, default=300, help="of each language to tell (300)")
    parser.add_argument("--minutes", type=float, default=0.5, help="of training for each language (0.5)")
    parser.add_argument("--quick", action="store_true", help="only see that it runs")
    arguments = parser.parse_args()
    budget = {"minutes": arguments.minutes}
    if arguments.quick:
        arguments.size, arguments.lines = 5000, 5
        budget = {"steps": 30, "hidden": 16, "layers": 1, "engine": "torch", "precision": "fp32", "threads": 1}
    random = np.random.default_rng(0)
    training, lines, labels = {}, [], []
    for name, known, fresh in texts(arguments.size):
        training[name] = known
        chosen = [fresh[place] for place in random.permutation(len(fresh))[: arguments.lines]]
        lines += chosen
        labels += [name] * len(chosen)
        print(f"{name}: {len(known):,} characters, {len(chosen)} lines to tell", file=sys.stderr)
    rows = [ours(training, lines, labels, budget)]
    if not arguments.quick and (rival := ngrams(training, lines, labels)):
        rows.append(rival)
    print(describe_machine(languages=len(training), lines=len(lines)), "\n")
    print(table(HEADER, rows))


def row(name: str, found: list[str], labels: list[str], training: float, telling: float) -> list[str | float]:
    """Of the table."""
    right = np.array(found) == np.array(labels)
    return [name, len(labels), 100 * right.mean(), training, len(labels) / telling]


def ours(
    training: dict[str, str], lines: list[str], labels: list[str], budget: dict[str, object]
) -> list[str | float]:
    """One model for each language; the label is that of the one to which a line is least surprising."""
    started = time.perf_counter()
    models = {name: charrnn.train(text, documents="lines", **budget).checkpoint for name, text in training.items()}
    trained = time.perf_counter()
    pieces = [LineFragment(line.encode()) for line in lines]
    nats = {
        name: [score.nats for score in LineScorer(model, torch_scorer(model)).score(pieces)]
        for name, model in models.items()
    }
    names = list(nats)
    found = [names[place] for place in np.argmin([nats[name] for name in names], axis=0)]
    return row("charrnn", found, labels, trained - started, time.perf_counter() - trained)


def ngrams(training: dict[str, str], lines: list[str], labels: list[str]) -> list[str | float] | None:
    """The rival, if it is there."""
    try:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
    except ImportError:
        print("scikit-learn is missing: nothing to compare with", file=sys.stderr)
        return None
    known = [(line, name) for name, text in training.items() for line in text.splitlines() if line.strip()]
    classifier = make_pipeline(
        TfidfVectorizer(analyzer="char", ngram_range=(1, 4), sublinear_tf=True, lowercase=False),
        LogisticRegression(max_iter=300),
    )
    started = time.perf_counter()
    classifier.fit(*zip(*known, strict=True))
    trained = time.perf_counter()
    found = list(classifier.predict(lines))
    return row("n-grams", found, labels, trained - started, time.perf_counter() - trained)


if __name__ == "__main__":
    main()
