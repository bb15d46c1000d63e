"""Labels of documents: domains planted and not, routers that follow their document, and words that differ by domain."""

import numpy as np

from probes import specialization
from tests.probes.planted_routes import Text, against, hashed, planted_text


def test_labels_of_documents_are_exchanged_with_their_documents() -> None:
    """A router that follows the document finds any label of documents over tokens, and must not."""
    text, rng = planted_text(12_000, seed=0), np.random.default_rng(2)
    favourite = rng.integers(0, 6, text.documents.max() + 1)
    experts = np.where(
        rng.random(len(text.types)) < 0.5, favourite[text.documents], rng.integers(0, 6, len(text.types))
    )
    domain = rng.integers(0, 3, text.documents.max() + 1)[text.documents]
    by_document = specialization.association(experts, domain, text.types, text.documents)
    by_token = specialization.association(experts, domain, text.types)
    assert by_token.null_label.z > 20 and (by_token.cells.q < 0.05).any()
    assert abs(by_document.null_label.z) < 3 and abs(by_document.within_type.z) < 3
    assert not (by_document.cells.q < 0.05).any()


def two_domains(n: int, seed: int) -> Text:
    """Documents of 100 tokens in two domains; half of the types are ten times commoner in one of them."""
    rng = np.random.default_rng(seed)
    share = 1 / (np.arange(1200) + 20.0)
    own = np.where(np.arange(1200) % 4 == 0, 10.0, 1.0), np.where(np.arange(1200) % 4 == 2, 10.0, 1.0)
    documents = np.arange(n) // 100
    domain = rng.permutation(np.arange(n // 100) % 2)[documents]
    drawn = [rng.choice(1200, n, p=share * weight / (share * weight).sum()) for weight in own]
    return Text(np.array(["politics", "programming"])[domain], np.where(domain, drawn[1], drawn[0]), documents)


def test_a_router_by_token_hash_knows_no_domain_beyond_its_words() -> None:
    z = []
    for seed in range(20):
        text = two_domains(8_000, seed)
        found = against(text, hashed(text, n_experts=8, k=2, seed=seed + 50), n_permutations=100)
        assert found.null_label.z > 5  # words differ by domain, so this null alone would name a specialist
        assert not (found.cells["q"] < 0.01).any()
        z.append(found.null_type.z)
    assert np.abs(z).max() < 3
    assert 0.7 <= np.sqrt(np.mean(np.square(z))) <= 1.3


def test_a_planted_expert_of_a_domain_is_found_and_a_routers_moods_by_document_are_not() -> None:
    text, rng = two_domains(12_000, 1), np.random.default_rng(3)
    experts = hashed(text, n_experts=8, k=1, seed=1)[:, 0]
    planted = np.where((text.labels == "programming") & (rng.random(len(experts)) < 0.3), 5, experts)
    found = against(text, planted)
    assert found.null_type.z > 5 and found.within_type.z > 5
    best = found.cells.sort_values("pmi").iloc[-1]
    assert (best.expert, best.label) == (5, "programming") and best.q < 1e-3


def test_a_routers_moods_by_document_are_no_domain() -> None:
    """Half of each document goes to an expert of its own: inside types no domain, whatever the words of domains."""
    z = {"documents": [], "tokens": []}
    for seed in range(10):
        text, rng = two_domains(6_000, seed), np.random.default_rng(seed + 100)
        favourite = rng.integers(0, 8, text.documents.max() + 1)[text.documents]
        words = hashed(text, n_experts=8, k=1, seed=1)[:, 0]
        experts = np.where(rng.random(len(words)) < 0.5, favourite, words)
        z["documents"].append(against(text, experts, n_permutations=60).within_type.z)
        by_token = specialization.association(experts, text.labels, text.types, n_permutations=60)
        z["tokens"].append(by_token.within_type.z)
    assert np.abs(z["documents"]).max() < 2 and abs(np.mean(z["documents"])) < 0.5
    assert np.mean(z["tokens"]) > 2  # what exchanging tokens would have claimed
