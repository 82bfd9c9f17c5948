"""One command per stage and the commands around them."""
