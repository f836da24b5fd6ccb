# %% exercise 1
def my_mean_colours(images, patch):
    """Images [B, 3, H, W] to [B, 3, H / patch, W / patch]."""
    return images.unfold(2, patch, patch).unfold(3, patch, patch).mean((-2, -1))


# %% exercise 2
seen = colours.movedim(1, -1)[hidden]  # [hidden patches, 3]
best_colour = seen.mean(0)
blind = float((seen - best_colour).square().sum(1).mean())

# %% exercise 3
taught = hidden
