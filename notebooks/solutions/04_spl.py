# %% exercise 1
import itertools


def smallest_cost(cost):
    """Cost [queries, labels], queries ≥ labels, to a number."""
    queries, labels = cost.shape
    ways = itertools.permutations(range(queries), labels)
    return min(sum(cost[query, label] for label, query in enumerate(way)) for way in ways)


# %% exercise 2
tricky = torch.tensor([[0.5, 0.4], [0.4, 0.1]])  # query 0 is best for both; label 1 needs it more

# %% exercise 3
free = (wanted == len(names)).float()
share_at_1 = float(free.mean())
share_at_tenth = float(0.1 * free.sum() / (0.1 * free + (1 - free)).sum())
