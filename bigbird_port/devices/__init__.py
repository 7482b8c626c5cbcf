"""How weights and texts are split over several devices, and what these exchange."""
