# %% exercise 1
def evenness(shares):
    """Shares [..., N] that sum to 1 → [...], 1 for even ones, 0 for a single one."""
    return torch.special.entr(shares).sum(-1) / math.log(shares.shape[-1])


# %% exercise 2
def sharpened(q, k, s):
    """Attention [pairs, heads, words, cells] with queries and keys s times as large."""
    return (s**2 * q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).softmax(-1)


# %% exercise 3
def parameters(width):
    return 4 * (width * width + width) + 2 * width
