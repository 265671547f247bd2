"""What becomes of a run when its cluster loses the leader, and a machine."""
