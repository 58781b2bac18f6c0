"""Run experts on images; cache, verbalize, draw and explain their perceptions. Nothing here imports torch."""
