# %% exercise 1
def majority(labels, cell, classes):
    """Label maps [B, H, W] to [B, H / cell, W / cell]."""
    blocks = labels.unfold(1, cell, cell).unfold(2, cell, cell).flatten(3)  # [B, h, w, pixels of a cell]
    votes = torch.stack([(blocks == index).sum(-1) for index in range(classes)], -1)
    most, winner = votes.max(-1)
    return torch.where(most > 0, winner, IGNORED)


# %% exercise 2
share = torch.bincount(target[target != IGNORED]).float()
share = share[share > 0] / share.sum()
blind = float(-(share * share.log()).sum())

# %% exercise 3
taught = {"vision", "visual_loss"}
