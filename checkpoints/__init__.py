"""Read and write weights folders: networks, their architecture, and the unit of their depth."""
