"""The reader's training: a small cross-encoder over multilingual-e5-small that says whether a conversation needs an edit."""
