"""What scoring has to give, the slow and obvious way: the whole context through the NumPy reference for each token."""

import numpy as np

from gpt2.engine import reference


def log_softmax(logits):
    shifted = logits - logits.max()
    return shifted - np.log(np.exp(shifted).sum())


class Slow:
    """A model's log-probabilities; contexts that came before are looked up."""

    def __init__(self, weights, hparams):
        self.weights, self.hparams, self.known = weights, hparams, {}

    def after(self, context):
        """Of all ids [V], after this context."""
        key = tuple(int(one) for one in context)
        if key not in self.known:
            self.known[key] = log_softmax(reference.logits(self.weights, self.hparams, key)[-1])
        return self.known[key]

    def logprobs(self, ids, protocol):
        """Of each token of a text, by the words of `Protocol`; None of one that is not scored."""
        before = [] if protocol.start is None else [protocol.start]
        fed, found = [*before, *ids], []
        for place in range(len(before), len(fed)):
            if place == 0:
                found.append(None)
                continue
            begin = 0
            if place > protocol.window:
                number = (place - protocol.window - 1) // protocol.stride
                last = min(protocol.window + (number + 1) * protocol.stride, len(fed) - 1)
                begin = last - protocol.window
            found.append(self.after(fed[begin:place])[fed[place]])
        return found

    def ending(self, context, ids):
        """The sum over ids that follow a context."""
        return sum(self.after([*context, *ids[:place]])[one] for place, one in enumerate(ids))
