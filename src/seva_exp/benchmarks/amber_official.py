"""AMBER's official way to find nouns and words that mean the same (``inference.py`` of
github.com/junyangwang0410/AMBER): nltk's tagger and WordNet's lemmas, cosines of spaCy's large
English vectors. Neither is a dependency of this package; what a number comes of depends on their
versions, which stand in the protocol's name.
"""

from __future__ import annotations

from functools import cache, lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from seva_exp.core.errors import InputError

VECTORS = "en_core_web_lg"
SIMILARITY = 0.8
"""Two words are alike above this cosine."""
NLTK_DATA = {
    "punkt_tab": "tokenizers/punkt_tab",
    "averaged_perceptron_tagger_eng": "taggers/averaged_perceptron_tagger_eng",
    "wordnet": "corpora/wordnet",
}
"""What nltk's functions read, and where it lies in its data folder."""
INSTALL = (
    "the protocol 'official' of amber needs nltk with its data and spaCy with its large English "
    f"vectors: pip install nltk spacy; python -m spacy download {VECTORS}; "
    f"python -m nltk.downloader {' '.join(NLTK_DATA)}. Or take a protocol that finds objects by "
    "rules (benchmark.amber.protocol=llava15)."
)


def versions() -> dict[str, str]:
    """The versions of what is installed of the three packages."""
    found = {}
    for name in ("nltk", "spacy", VECTORS):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def suffix() -> str:
    """What the protocol's name says of the tools; "" where they are not all there."""
    found = versions()
    if not {"nltk", VECTORS} <= set(found):
        return ""
    return f"+{VECTORS}{found[VECTORS]}.nltk{found['nltk']}"


def check() -> None:
    """Whether all is there. Raises InputError that says what to install."""
    missing = [name for name in ("nltk", "spacy", VECTORS) if name not in versions()]
    if not missing:
        missing = _missing_data()
    if missing:
        raise InputError(f"benchmark.amber: not installed: {', '.join(missing)}; {INSTALL}")


def _missing_data() -> list[str]:
    import nltk

    missing = []
    for name, place in NLTK_DATA.items():
        try:
            nltk.data.find(place)
        except LookupError:
            try:
                nltk.data.find(f"{place}.zip")
            except LookupError:
                missing.append(f"nltk's {name}")
    return missing


def nouns(text: str) -> list[str]:
    """The lemmas of the words that are tagged as nouns, in order. Case is kept and lemmas are
    WordNet's, as in the official script: "Dogs" and "men" are no words of the lists."""
    import nltk
    from nltk.stem import WordNetLemmatizer

    lemma = WordNetLemmatizer().lemmatize
    tagged = nltk.pos_tag(nltk.word_tokenize(text))
    return [str(lemma(word)) for word, tag in tagged if tag.startswith("NN")]


@lru_cache(maxsize=1 << 20)
def similar(one: str, other: str) -> bool:
    """Whether the cosine of two words' vectors is above 0.8: 1 of a word and itself, else 0 where
    one has no vector."""
    if one == other:
        return True
    first, second = _document(one), _document(other)
    known = first.vector_norm and second.vector_norm
    return bool(known and first.similarity(second) > SIMILARITY)


@cache
def _pipeline() -> Any:
    import spacy

    return spacy.load(VECTORS)


@lru_cache(maxsize=1 << 12)
def _document(word: str) -> Any:
    """A word as spaCy has it; its vector needs no more of the pipeline than the tokens."""
    return _pipeline().make_doc(word)
