"""What Hermes itself registers, through the same door as anyone."""
