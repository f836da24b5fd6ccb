# %% exercise 1
best_p = 0.7
best_loss = -(0.7 * math.log(0.7) + 0.3 * math.log(0.3))

# %% exercise 2
from collections import Counter

samples = [train[key] for key in TrainingOrder(len(train), 32, 1, seed).step(0)]
as_match, as_mismatch = Counter(), Counter()
for sample in samples:
    for text in sample.texts:
        (as_match if text.matched else as_mismatch)[tuple(text.clean_ids.tolist())] += 1

# %% exercise 3
trained = scores["trained"]
correct = (trained["score"] > 0) == trained["matched"]
right_of_all = float(correct.mean())
right_of_matched = float(correct[trained["matched"]].mean())
right_of_mismatched = float(correct[~trained["matched"]].mean())
