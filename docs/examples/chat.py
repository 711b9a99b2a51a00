"""Holds a conversation; each answer arrives piece by piece."""

import fewbit

model = fewbit.load("demo")
messages: list[dict[str, str]] = []

for question in ("Once upon a time there was a dog.", "What did it find in the garden?"):
    print(f"> {question}")
    messages.append({"role": "user", "content": question})
    reply = model.chat(messages, max_tokens=40, temperature=0.7, seed=1)
    for piece in reply:
        print(piece.text, end="", flush=True)
    messages.append({"role": "assistant", "content": reply.text})
    print("\n")
