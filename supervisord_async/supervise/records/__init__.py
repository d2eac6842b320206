"""What is told of every change: numbered, masked, kept, counted, and sent to whoever asked."""
