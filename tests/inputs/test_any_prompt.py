"""Any prompt, and any options of sampling, give a text or one line."""

import numpy as np
from hypothesis import strategies as st

from slm_core.data.tokenizers import Byte, Char, Tokenizer, Words, train_bpe
from slm_core.inference.sampling import generate
from tests.core.fake_engine import BigramDecoder
from tests.inputs.answers import answer, for_all, tiers

TOKENIZERS: list[Tokenizer] = [
    Byte(), Char("\0 abcé日🦙\n"), Words(["_", "k0", "v0"]), train_bpe(["the fox é 日 🦙 " * 30], 300),
]  # fmt: skip
NUMBERS = st.one_of(st.sampled_from([0, 1, -1, 2**32, 2**128, -(2**64), 10**30]), st.integers(-5, 50))
REALS = st.one_of(st.floats(), st.sampled_from([0.0, -0.0, 1.0, 1e-300, 1e300]))


@tiers(40, 80, 600)
def test_prompts_and_options(count):
    answers = []

    def check(tokenizer, text, max_tokens, temperature, top_k, top_p, seed, logits):
        def write() -> None:
            decoder = BigramDecoder(np.full((tokenizer.vocab_size, tokenizer.vocab_size), logits), 8)
            options = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "seed": seed}
            stream = tokenizer.stream()
            for token in generate(decoder, tokenizer.prompt(text), min(max_tokens, 20), **options):
                stream.push(token)
            stream.flush()

        answers.append(answer(write))

    for_all(
        count, check, tokenizer=st.sampled_from(TOKENIZERS), max_tokens=NUMBERS, temperature=REALS, top_k=NUMBERS,
        text=st.one_of(st.text(max_size=20), st.sampled_from(["", "k0 v0", "a\0", "é日🦙", "\x1b[31m", "a" * 500])),
        top_p=st.one_of(REALS, st.just(1.0)), seed=NUMBERS, logits=st.sampled_from([0.0, -1e308, 1e308]),
    )  # fmt: skip
    assert "" in answers and len(set(answers)) > 5
