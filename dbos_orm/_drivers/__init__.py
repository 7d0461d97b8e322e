"""What performs effects: a sync driver, an asyncio driver, and the committer that they share."""
