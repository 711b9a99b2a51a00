"""A tour of the whole public API, as the cells of a notebook."""

# %% Arrays in few bits
import numpy as np

import fewbit

weights = np.random.default_rng(0).normal(0, 0.05, (64, 256)).astype(np.float32)
q = fewbit.quantize(weights, "Q4_0")
print(fewbit.__version__, q, q.codes.min(), q.codes.max(), q.scales.shape, q.zeros, q.error)
assert q == fewbit.QuantizedTensor.from_bytes(q.data.tobytes(), "Q4_0", q.shape)
assert np.array_equal(np.asarray(q), fewbit.dequantize(q.data, "Q4_0", q.shape))

# %% A model, smaller, as text and in conversation
with fewbit.load("demo", "cpu") as model:
    small = model.quantize("Q4_K_M")
    print(small, small.tensor("blk.0.attn_q.weight").shape, fewbit.inspect("demo").weights)
    print(
        small.generate("The old house", temperature=0.5, top_p=0.9, max_tokens=9, stop=".", seed=1)
    )
    print(small.chat([{"role": "user", "content": "Hello!"}], max_tokens=9, seed=1))
    talk = fewbit.Conversation(small, system="Tell stories.")
    reply = talk.ask("Who lives there?", max_tokens=9, sampling=fewbit.Sampling(temperature=0))
    talk.remember("Who lives there?", str(reply))

    # %% What it lost, and how fast it is: results print as tables and show as HTML
    lost: fewbit.Divergence = small.divergence(model, fewbit.demo_text(), chunks=2)
    ppl: fewbit.Perplexity = small.perplexity(fewbit.demo_text(), chunks=2)
    print(lost, ppl, lost._repr_html_()[:7], fewbit.compare(model, ["Q8_0"], chunks=2), sep="\n")
    print(fewbit.bench(small, prompt=32, generate=8, repetitions=1).to_markdown())
    cache: fewbit.Cache = small.cache(sequences=2, capacity=8)
    logits = small.forward(cache, small.tokenizer.encode("The old"), acts="f32")
    print(logits.shape, cache.length(0), isinstance(small.tokenizer, fewbit.Tokenizer))

# %% Errors say what was expected
try:
    fewbit.load("demo", "gpu:99")
except (fewbit.DeviceError, fewbit.FewbitError) as error:
    print(type(error).__name__, error)
