"""What a voice is worth: its synthesis of unseen sentences, the scorecard, the gates, the page."""
