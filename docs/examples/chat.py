"""Holds a conversation; the answer arrives piece by piece."""

import fewbit
from fewbit.generation.conversation import Conversation

model = fewbit.load(fewbit.DEMO)
conversation = Conversation(model)
sampling = fewbit.Sampling(temperature=0.7, seed=1)

for question in ("Once upon a time there was a dog.", "What did it find in the garden?"):
    print(f"> {question}")
    reply = conversation.ask(question, max_tokens=40, sampling=sampling)
    for piece in reply:
        print(piece.text, end="", flush=True)
    conversation.remember(question, reply.text)
    print("\n")
